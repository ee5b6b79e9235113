"""A stand-in hub with one model and one dataset, and an environment that knows no other."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import close_session

from yarnlab.hub.client import Patience
from yarnlab.hub.fetch import Fetched, fetch
from yarnlab.hub.lock import Asset

from .mini_hub import MiniHub

QUICK = Patience(tries=2, pause=0.001, timeout=5.0)
NAME, DATA = "owner/model", "owner/data"
MODEL, DATASET = Asset("model", NAME, "main"), Asset("dataset", DATA, "main", ("data/*.parquet",))
BIG, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
INDEX = b'{"weight_map": {"a": "%s", "b": "%s"}}' % (BIG.encode(), SECOND.encode())
FILES = {
    "config.json": b"{}",
    "tokenizer.json": b"{}" * 50,
    BIG: bytes(range(256)) * 4000,
    SECOND: b"second" * 900,
    "model.safetensors.index.json": INDEX,
}
# What lies in such repositories besides, and is not fetched.
OTHERS = {
    "pytorch_model.bin": b"the same weights again",
    "consolidated.safetensors": b"and again",
    "training_args.bin": b"a pickle",
    "modeling_llama_yarn.py": b"raise SystemExit",
    "original/params.json": b"{}",
    "README.md": b"hello",
    ".gitattributes": b"*.bin filter=lfs",
}


class Environment:
    """A monkeypatch after whose changes huggingface_hub reads the environment again, as a new process would."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch

    def __getattr__(self, name: str) -> Callable[..., object]:
        def change(*arguments, **options):
            made = getattr(self._patch, name)(*arguments, **options)
            importlib.reload(constants)
            return made

        return change


@pytest.fixture
def monkeypatch() -> Iterator[Environment]:
    with pytest.MonkeyPatch.context() as patch:
        yield Environment(patch)
    importlib.reload(constants)
    close_session()  # a session keeps the proxies of the environment in which it began


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: Environment) -> Iterator[MiniHub]:
    with MiniHub() as served:
        served.push("models", NAME, {**FILES, **OTHERS})
        served.push("datasets", DATA, {f"data/train-{i:05d}.parquet": b"rows %d" % i for i in range(90)})  # three pages
        for key, value in served.env(tmp_path / "home").items():
            monkeypatch.setenv(key, value)
        for key in ("HF_HUB_OFFLINE", "HF_TOKEN", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_TOKEN_PATH"):
            monkeypatch.delenv(key, raising=False)
        yield served


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "assets" / "it"


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    return tmp_path / "hub.lock.yaml"


@pytest.fixture
def get(hub: MiniHub, folder: Path, lock: Path) -> Callable[..., Fetched]:
    def run(asset: Asset = MODEL, **options) -> Fetched:
        return fetch(asset, lock, folder, **{"lock_missing": True, "patience": QUICK, "workers": 2, **options})

    return run


@pytest.fixture
def address(hub: MiniHub) -> Callable[[str], str]:
    """The path under which the hub serves a file of the model."""
    return lambda file: f"/{NAME}/resolve/{hub.commit('models', NAME)}/{file}"
