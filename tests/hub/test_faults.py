"""Every way in which a download goes wrong: one message that says what to do, nothing good lost, nothing bad kept."""

from __future__ import annotations

import errno
import io
import shutil
import time
from pathlib import Path

import pytest

from yarnlab.hub.errors import HubError
from yarnlab.hub.lock import Asset
from yarnlab.hub.pin import lock_assets

from .conftest import BIG, DATA, FILES, MODEL, NAME, QUICK, SECOND


def test_corruption_of_the_same_size_is_found_and_never_kept(hub, get, folder, address):
    hub.faults[address(BIG)] = "corrupt"
    with pytest.raises(HubError, match=rf"{NAME}: {BIG} arrived twice .* use another HF_ENDPOINT"):
        get()
    assert hub.downloads().count(BIG) == 2
    left = {path.name for path in folder.iterdir()}
    assert BIG not in left and f"{BIG}.partial" not in left and "asset.json" not in left
    hub.faults[address(BIG)] = "corrupt once"
    get()
    assert (folder / BIG).read_bytes() == FILES[BIG]


def test_a_body_longer_than_the_lock_says_is_cut_and_judged_by_its_hash(hub, get, folder, address):
    hub.faults[address(SECOND)] = "longer"
    get()
    assert (folder / SECOND).read_bytes() == FILES[SECOND]


def test_several_files_with_faults_are_named_at_once(hub, get, folder, address):
    for name in ("config.json", BIG, SECOND):
        hub.faults[address(name)] = "corrupt"
    with pytest.raises(HubError, match=rf"config.json arrived twice .*Also not fetched: {BIG}, {SECOND}"):
        get()
    hub.faults.clear()
    hub.requests.clear()
    get()
    assert sorted(hub.downloads()) == sorted(["config.json", BIG, SECOND])


@pytest.mark.parametrize("fault", ["500", "429"])
def test_a_server_in_trouble_is_asked_again_and_then_named(hub, get, address, fault):
    hub.faults[address("config.json")] = fault
    with pytest.raises(HubError, match=rf"answered {fault} for config.json of {NAME}, 2 times. Try again later"):
        get()
    assert hub.downloads().count("config.json") == QUICK.tries
    hub.faults[address("config.json")] = f"{fault} once"
    get()


@pytest.mark.parametrize("path", [f"/api/models/{NAME}/revision/main", "config.json"])
def test_a_hub_that_names_a_pause_is_left_alone_that_long(hub, get, address, path):
    """Metadata and files; without the header the pause would be a millisecond."""
    hub.asks_for = {"Retry-After": "1"}
    hub.faults[path if path.startswith("/") else address(path)] = "429 once"
    start = time.monotonic()
    get()
    assert 1 <= time.monotonic() - start < 5


def test_metadata_are_asked_for_with_the_same_patience(hub, get):
    path = f"/api/models/{NAME}/revision/main"
    hub.faults[path] = "500 once"
    get()
    assert [request.path for request in hub.requests].count(path) == 2


def test_a_signature_that_expired_is_not_taken_for_a_licence(hub, get, address):
    hub.faults[address(BIG)] = "expired"
    with pytest.raises(HubError, match=r"\(the server it redirects to\) answered 403"):
        get()
    hub.faults[address(BIG)] = "expired once"
    get()


@pytest.mark.parametrize(
    ("asset", "error", "message"),
    [
        (Asset("model", "owner/none", "main"), HubError, "there is no model owner/none .* correct `repo`"),
        (Asset("model", NAME, "v9"), HubError, "has no revision v9: correct `revision`"),
        (Asset("model", NAME, "0" * 40), HubError, "has no revision 0{40}: correct `revision`"),
        (
            Asset("dataset", DATA, "main", ("test/*",)),
            HubError,
            r"no file that matches test/\*; it has data/train-00000",
        ),
        (Asset("model", NAME, "main", ("*.py",)), HubError, "modeling_llama_yarn.py could run code"),
        (Asset("model", NAME, "main", ("training_args.bin",)), HubError, "training_args.bin could run code"),
    ],
)
def test_what_does_not_exist_or_must_not_be_fetched_is_named(get, folder, asset, error, message):
    with pytest.raises(error, match=message):
        get(asset)
    assert not folder.exists()


def test_a_file_that_left_the_hub_is_named(hub, get, lock):
    lock_assets([MODEL], lock, patience=QUICK)
    del hub.repositories["models", NAME].files[SECOND]
    with pytest.raises(HubError, match=rf"has no file {SECOND} at the pinned commit"):
        get()


def test_a_commit_that_left_the_hub_keeps_the_lock_and_says_how_to_go_on(hub, get, lock):
    lock_assets([MODEL], lock, patience=QUICK)
    old, text = hub.commit("models", NAME), lock.read_text()
    hub.push("models", NAME, {"config.json": b"rewritten"})
    del hub.repositories["models", NAME].commits[old]
    with pytest.raises(HubError, match=rf"no longer has commit {old}.*`yarnlab lock --update"):
        get()
    assert lock.read_text() == text


def test_an_index_that_names_a_shard_which_is_not_there(hub, get):
    index = FILES["model.safetensors.index.json"]
    hub.push("models", NAME, {"model.safetensors.index.json": index, "model.safetensors": b"1"})
    with pytest.raises(HubError, match=rf"index.json names {BIG}, {SECOND}, which are not among its files"):
        get()


def test_gated_weights_say_what_to_do(hub, get, monkeypatch):
    hub.gated.add(NAME)
    with pytest.raises(HubError, match=rf"{NAME} is gated: accept its licence at http.*/{NAME}, then set HF_TOKEN"):
        get()
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    with pytest.raises(HubError, match=r"this token has no access. Accept the licence"):
        get()
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(HubError, match=r"refuses the token .* wrong or has expired"):
        get()
    monkeypatch.setenv("HF_TOKEN", hub.token)
    get()


def test_a_closed_gate_is_tried_once_and_not_for_every_file(hub, get):
    hub.gated.add(NAME)
    with pytest.raises(HubError):
        get(workers=1)
    assert len(hub.downloads()) == 1


def test_the_token_that_a_login_left_is_used(hub, get, tmp_path):
    hub.gated.add(NAME)
    (tmp_path / "home").mkdir()
    (tmp_path / "home/token").write_text(f"{hub.token}\n")
    get()


def test_a_token_with_a_line_break_is_refused_without_being_shown(hub, get, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_one\nhf_two")
    with pytest.raises(HubError) as caught:
        get()
    assert "hf_" not in str(caught.value)


def test_a_token_goes_to_the_hub_alone_and_is_never_written_down(hub, get, monkeypatch, tmp_path, capfd, address):
    monkeypatch.setenv("HF_TOKEN", hub.token)
    hub.faults[address(BIG)] = "truncated"
    with pytest.raises(HubError) as caught:
        get(log=tmp_path / "log")
    hub.faults.clear()
    get(log=tmp_path / "log")
    sent = {(request.server, request.authorization) for request in hub.requests}
    assert sent == {("hub", f"Bearer {hub.token}"), ("storage", None)}
    texts = [path.read_text(errors="replace") for path in tmp_path.rglob("*") if path.is_file()]
    texts += [str(caught.value), repr(caught.value), *capfd.readouterr()]
    assert any(BIG in text for text in texts) and not any(hub.token in text for text in texts)


def test_a_page_link_to_another_host_is_not_followed_there(hub, get, monkeypatch):
    """Behind a mirror, the hub's own address stands in page links."""
    monkeypatch.setenv("HF_TOKEN", hub.token)
    hub.link_host = hub.storage_url
    assert len(get(Asset("dataset", DATA, "main")).paths) == 91
    assert not any(r.server == "storage" and "/api/" in r.path for r in hub.requests)


def test_an_unreachable_hub(get, monkeypatch, capfd):
    monkeypatch.setenv("HF_ENDPOINT", "http://user:passw0rd@127.0.0.1:9")
    with pytest.raises(HubError, match=r"http://127.0.0.1:9 cannot be reached .* HF_ENDPOINT to a mirror") as caught:
        get()
    assert "passw0rd" not in str(caught.value) + "".join(capfd.readouterr())
    monkeypatch.setenv("HF_ENDPOINT", "hf-mirror.com")
    with pytest.raises(HubError, match="HF_ENDPOINT is not an address"):
        get()


def test_a_mirror_that_is_no_hub(hub, get, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_ENDPOINT", f"{hub.url}/nowhere")
    with pytest.raises(HubError, match="there is no model owner/model"):
        get()


def test_a_disk_that_is_too_small_is_foreseen(hub, get, monkeypatch):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr("yarnlab.hub.record.shutil.disk_usage", lambda _: usage._replace(free=1_000))
    with pytest.raises(HubError, match=rf"is full: {NAME} needs 0.0 GB more and 0.0 GB are free"):
        get()
    assert hub.downloads() == []


def test_a_disk_that_fills_up_keeps_what_arrived(hub, get, monkeypatch, folder):
    real = Path.open

    class Full(io.FileIO):
        def write(self, content):
            if self.tell() + len(content) > 100_000:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(content)

    def limited(self, mode="r", *args, **kwargs):
        return Full(self, mode) if mode == "ab" and self.name == f"{BIG}.partial" else real(self, mode, *args, **kwargs)

    (folder).mkdir(parents=True)
    (folder / f"{BIG}.partial").write_bytes(FILES[BIG][:70_000])
    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", limited)
        with pytest.raises(HubError, match=rf"the disk of .* is full: {BIG} has 1,024,000 bytes. What arrived is kept"):
            get()
    kept = (folder / f"{BIG}.partial").stat().st_size
    assert 70_000 <= kept <= 100_000
    get()
    assert f"bytes={kept}-" in [request.range for request in hub.requests]


def test_every_fault_is_shown_as_one_message():
    from yarnlab.errors import UserError

    assert issubclass(HubError, UserError)
