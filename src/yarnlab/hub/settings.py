"""What the hub's own environment variables say, read when it is needed and not when a module is imported."""

from __future__ import annotations

import os
from pathlib import Path

DEFAULT_ENDPOINT = "https://huggingface.co"


def endpoint() -> str:
    """The hub, or the mirror that HF_ENDPOINT names."""
    return (os.environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/")


def offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON")


def cache() -> Path:
    """Where huggingface_hub keeps `models--owner--name/snapshots/<commit>/…`."""
    chosen = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    return Path(chosen).expanduser() if chosen else _home() / "hub"


def token() -> str | None:
    """HF_TOKEN, or what a login left on disk (HF_TOKEN_PATH, HF_HOME/token)."""
    given = os.environ.get("HF_TOKEN", "").strip()
    if not given:
        chosen = os.environ.get("HF_TOKEN_PATH")
        file = Path(chosen).expanduser() if chosen else _home() / "token"
        if file.is_file():
            given = file.read_text(encoding="utf-8", errors="replace").strip()
    return given or None


def _home() -> Path:
    if chosen := os.environ.get("HF_HOME"):
        return Path(chosen).expanduser()
    caches = os.environ.get("XDG_CACHE_HOME")
    return (Path(caches).expanduser() if caches else Path.home() / ".cache") / "huggingface"
