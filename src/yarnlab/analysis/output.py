"""Write a result file so that a reader never sees half of it."""

from __future__ import annotations

import os
from pathlib import Path


def write(path: Path, data: str | bytes) -> Path:
    """Write `data` under a temporary name beside `path`, then rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(data.encode() if isinstance(data, str) else data)
    os.replace(temporary, path)
    return path
