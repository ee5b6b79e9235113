"""Every way in which a download goes wrong: one message, nothing good lost, nothing bad kept."""

from __future__ import annotations

import errno
import json
import shutil
import threading
from pathlib import Path

import pytest

from yarnlab.hub import fetch as fetching
from yarnlab.hub.api import HubError
from yarnlab.hub.fetch import Patience, fetch
from yarnlab.hub.lock import Asset, lock_assets, read_lock

from .mini_hub import MiniHub

QUICK = Patience(tries=2, pause=0.01)
NAME, DATA = "owner/model", "owner/data"
MODEL, DATASET = Asset("model", NAME, "main"), Asset("dataset", DATA, "main", ("data/*.parquet",))
BIG = "model-00001-of-00002.safetensors"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    files = {
        "config.json": b"{}",
        "tokenizer.json": b"{}" * 50,
        BIG: bytes(range(256)) * 4000,
        "model-00002-of-00002.safetensors": b"second" * 900,
        "model.safetensors.index.json": b"{}",
        "pytorch_model.bin": b"old",
        "modeling.py": b"raise SystemExit",
        "README.md": b"hello",
    }
    for name, content in files.items():
        path = tmp_path / "hub/models" / NAME / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    for i in range(90):  # more than one page of the tree
        path = tmp_path / "hub/datasets" / DATA / f"data/train-{i:05d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"rows {i}".encode())
    with MiniHub(tmp_path / "hub") as served:
        for key, value in served.env(tmp_path / "home").items():
            monkeypatch.setenv(key, value)
        for key in ("HF_HUB_OFFLINE", "HF_TOKEN", "HF_HUB_CACHE", "HF_TOKEN_PATH"):
            monkeypatch.delenv(key, raising=False)
        yield served


@pytest.fixture
def get(hub, tmp_path):
    def run(asset: Asset = MODEL, **options):
        options = {"lock_missing": True, "patience": QUICK, "workers": 2, **options}
        return fetch(asset, tmp_path / "hub.lock.yaml", tmp_path / "assets" / asset.repo, **options)

    return run


def address(hub: MiniHub, file: str) -> str:
    return f"/{NAME}/resolve/{hub.commit('models', NAME)}/{file}"


def downloads(hub: MiniHub) -> list[str]:
    return [path.rpartition("/")[2] for path, *_ in hub.requests if "/resolve/" in path]


def test_a_model_comes_whole_without_code_and_without_second_weights(hub, get, tmp_path):
    made = get()
    names = {path.name for path in made.paths}
    assert names == {"config.json", "tokenizer.json", BIG, "model-00002-of-00002.safetensors",
                     "model.safetensors.index.json", "asset.json"}  # fmt: skip
    assert made.commit == hub.commit("models", NAME)
    record = json.loads((tmp_path / "assets" / NAME / "asset.json").read_text())
    assert record["files"][BIG]["size"] == 256 * 4000
    assert (tmp_path / "assets" / NAME / BIG).read_bytes() == hub.repositories["models", NAME].files[BIG]


def test_a_tree_of_several_pages_is_locked_whole(hub, get):
    assert len(get(DATASET).paths) == 91


def test_what_is_there_and_right_is_not_fetched_again(hub, get):
    get()
    hub.requests.clear()
    get()
    assert hub.requests == []


def test_only_the_file_that_changed_on_disk_is_fetched_again(hub, get, tmp_path):
    get()
    file = tmp_path / "assets" / NAME / BIG
    content = file.read_bytes()
    file.write_bytes(content[:-1] + b"?")  # the same size
    hub.requests.clear()
    get()
    assert downloads(hub) == [BIG]
    assert file.read_bytes() == content


def test_an_interrupted_download_goes_on_where_it_was(hub, get, tmp_path):
    hub.faults[address(hub, BIG)] = "truncated"
    with pytest.raises(HubError, match=r"breaks off again and again .* are kept. Run again"):
        get()
    kept = (tmp_path / "assets" / NAME / f"{BIG}.partial").stat().st_size
    assert 0 < kept < 256 * 4000
    assert not (tmp_path / "assets" / NAME / "asset.json").exists()
    hub.faults.clear()
    hub.requests.clear()
    get()
    assert (address(hub, BIG), f"bytes={kept}-", None) in hub.requests
    assert (tmp_path / "assets" / NAME / BIG).read_bytes() == hub.repositories["models", NAME].files[BIG]


def test_a_connection_that_breaks_once_is_taken_up_by_the_same_call(hub, get):
    hub.faults[address(hub, BIG)] = "truncated once"
    get()
    assert downloads(hub).count(BIG) == 2


def test_corruption_of_the_same_size_is_found_and_never_kept(hub, get, tmp_path):
    hub.faults[address(hub, BIG)] = "corrupt"
    with pytest.raises(HubError, match="arrived twice with another hash"):
        get()
    left = {path.name for path in (tmp_path / "assets" / NAME).iterdir()}
    assert BIG not in left and f"{BIG}.partial" not in left and "asset.json" not in left
    hub.faults[address(hub, BIG)] = "corrupt once"
    get()


def test_a_server_in_trouble_is_asked_again_and_then_named(hub, get):
    hub.faults[address(hub, "config.json")] = "500"
    with pytest.raises(HubError, match=r"answered 500 for config.json of owner/model; try again later"):
        get()
    assert downloads(hub).count("config.json") == QUICK.tries


@pytest.mark.parametrize(
    ("asset", "message"),
    [
        (Asset("model", "owner/none", "main"), "there is no model owner/none .* correct `repo`"),
        (Asset("model", NAME, "v9"), "has no revision v9: correct `revision`"),
        (Asset("model", NAME, "0" * 40), "correct `revision`|has no"),
        (Asset("dataset", DATA, "main", ("test/*",)), r"has no file that matches test/\*"),
        (Asset("model", NAME, "main", ("*.py",)), "could run code"),
    ],
)
def test_what_does_not_exist_is_named(hub, get, asset, message):
    with pytest.raises(HubError, match=message):
        get(asset)


def test_gated_weights_say_what_to_do(hub, get, monkeypatch):
    hub.gated.add(NAME)
    with pytest.raises(HubError, match=r"is gated: accept its licence at .*/owner/model, then set HF_TOKEN"):
        get()
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    with pytest.raises(HubError, match=r"this token has no access: accept the licence"):
        get()
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(HubError, match=r"refuses the token .* wrong or has expired"):
        get()
    monkeypatch.setenv("HF_TOKEN", hub.token)
    get()


def test_a_token_is_never_written_down(hub, get, monkeypatch, tmp_path, capfd):
    monkeypatch.setenv("HF_TOKEN", hub.token)
    hub.faults[address(hub, BIG)] = "truncated"
    with pytest.raises(HubError) as caught:
        get(log=tmp_path / "log")
    hub.faults.clear()
    get(log=tmp_path / "log")
    assert any(sent == f"Bearer {hub.token}" for *_, sent in hub.requests)
    texts = [p.read_text(errors="replace") for p in tmp_path.rglob("*") if p.is_file() and p.parts[-2] != "home"]
    assert not any(hub.token in text for text in [*texts, str(caught.value), repr(caught.value), *capfd.readouterr()])


def test_a_token_does_not_follow_a_redirect_to_another_host(hub, get, monkeypatch, tmp_path):
    """Large files are served by another host, which has no business with the token."""
    from http.server import BaseHTTPRequestHandler, HTTPServer

    class Redirect(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(302)
            self.send_header("Location", hub.url.replace("127.0.0.1", "localhost") + self.path)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Redirect)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setenv("HF_TOKEN", hub.token)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    get()
    assert hub.requests and all(sent is None for *_, sent in hub.requests)
    server.shutdown()
    server.server_close()


def test_an_unreachable_hub(hub, get, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(HubError, match=r"cannot be reached .* HF_ENDPOINT names a mirror"):
        get()


def test_offline_from_a_filled_cache(hub, get, monkeypatch, tmp_path):
    lock_assets([MODEL], tmp_path / "hub.lock.yaml")
    commit = hub.commit("models", NAME)
    snapshot = tmp_path / "home/hub/models--owner--model/snapshots" / commit
    shutil.copytree(tmp_path / "hub/models" / NAME, snapshot)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hub.requests.clear()
    get()
    assert hub.requests == []
    # A cached file that is not right is no substitute.
    shutil.rmtree(tmp_path / "assets")
    (snapshot / BIG).write_bytes(b"?" * 256 * 4000)
    with pytest.raises(HubError, match="HF_HUB_OFFLINE is set and something has to be fetched"):
        get()


def test_a_full_disk_is_foreseen_and_survived(hub, get, monkeypatch, tmp_path):
    usage = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(fetching.shutil, "disk_usage", lambda _: usage._replace(free=1000))
        with pytest.raises(HubError, match=r"is full: .* are needed and 0.0 GB are free"):
            get()
    real = Path.open

    def full(self, mode="r", *args, **kwargs):
        if self.name == f"{BIG}.partial" and "r" not in mode:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(self, mode, *args, **kwargs)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(HubError, match=r"the disk of .* is full: model-00001"):
        get()
    monkeypatch.setattr(Path, "open", real)
    get()


def test_a_branch_that_moved_on_is_not_followed(hub, get, tmp_path):
    old = get().commit
    hub.repositories["models", NAME].commit = "f" * 40
    assert get().commit == old
    lock_assets([MODEL], tmp_path / "hub.lock.yaml", update=True)
    assert read_lock(tmp_path / "hub.lock.yaml")[MODEL.key].commit == "f" * 40


def test_an_asset_that_nobody_locked_is_refused_where_that_is_asked(hub, get):
    with pytest.raises(HubError, match="run `yarnlab lock STUDY`"):
        get(lock_missing=False)


def test_two_that_lock_at_once_lose_nothing(hub, tmp_path):
    lock = tmp_path / "hub.lock.yaml"
    threads = [threading.Thread(target=lock_assets, args=([asset], lock)) for asset in (MODEL, DATASET)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(read_lock(lock)) == {MODEL.key, DATASET.key}
    text = lock.read_text()
    lock_assets([MODEL, DATASET], lock)
    assert lock.read_text() == text
