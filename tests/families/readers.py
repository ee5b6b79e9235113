"""Reads model folders with the transformers of its own process, of any version; run as a program by the tests.

    python readers.py OUT LENGTH FOLDER…

OUT gets, for each folder, logits of a fixed input, cos and sin (where the family has one rotary module for all layers),
what the chat template and generation settings are, or the error that refuses it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ONLY_WHEELS = "--only-binary=:all:"
PATIENCE_S = 600  # for downloads of some 20 MB


def installed(request, name: str, *what: str) -> Path:
    """A folder of the tests' cache with packages and nothing that they depend on; skips where pip reaches no index.

    Also where there is no wheel for this machine, if `what` has ONLY_WHEELS; any other failure is one.
    """
    import pytest

    folder = Path(request.config.cache.mkdir(name))
    if not (folder / "complete").exists():
        command = [sys.executable, "-m", "pip", "install", "--no-deps", "--upgrade", "--target", str(folder)]
        done = subprocess.run([*command, *what], capture_output=True, text=True, check=False, timeout=PATIENCE_S)
        if done.returncode:
            said = done.stderr.strip().splitlines()
            if os.environ.get("PIP_NO_INDEX") or any("Retrying (" in line for line in said):  # pip's word for no answer
                pytest.skip(f"no package index answers, so {what[0]} can't be installed: {said[-1]}")
            if ONLY_WHEELS in what:
                pytest.skip(f"{what[0]} has no wheel for this machine: {said[-1]}")
            pytest.fail(f"pip can't install {what[0]}: {said[-1]}")
        (folder / "complete").touch()
    return folder


def ids_of(length: int):
    import torch

    return torch.randint(3, 96, (1, length), generator=torch.Generator().manual_seed(1))


def tables_of(rotary, length: int):
    """cos and sin of the first positions, stacked; DeepSeek-V2's module has one table of cos + i·sin."""
    import torch

    found = rotary(torch.zeros(1, 1, 1), torch.arange(length)[None])
    return torch.stack((found.real, found.imag) if isinstance(found, torch.Tensor) else found)


def read(folder: str, length: int) -> dict:
    import torch
    from transformers import AutoModelForCausalLM

    try:
        model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").float().eval()
        with torch.no_grad():
            logits = model(ids_of(length), use_cache=False).logits[0]
            rotary = getattr(model.base_model, "rotary_emb", None)
            tables = None
            if rotary is not None and not hasattr(rotary, "layer_types"):
                tables = tables_of(rotary, length)
        return {"logits": logits, "tables": tables}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


def main(out: str, length: str, *folders: str) -> None:
    import torch
    import transformers

    found = {folder: read(folder, int(length)) for folder in folders}
    torch.save({"version": transformers.__version__, "read": found}, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
