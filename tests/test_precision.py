"""`precision: auto` is decided by what the processor can do, and by nothing else."""

from __future__ import annotations

import pytest

from yarnlab import precision


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("flags\t\t: fpu avx2 avx512f amx_bf16 amx_tile", True),
        ("flags\t\t: fpu avx2 avx512_bf16", True),
        ("Features\t: fp asimd bf16 sve", True),
        ("flags\t\t: fpu avx avx2 fma", False),
        ("model name\t: bf16 in its name only", False),
    ],
)
def test_the_processors_flags_decide(tmp_path, line, expected):
    file = tmp_path / "cpuinfo"
    file.write_text(f"processor\t: 0\n{line}\n")
    precision.processor_multiplies_bf16.cache_clear()
    assert precision.processor_multiplies_bf16(file) is expected


def test_what_is_named_is_what_is_used():
    assert precision.resolve_precision("fp32") == "fp32"
    assert precision.resolve_precision("bf16") == "bf16"
    assert precision.resolve_precision("auto") in ("bf16", "fp32")
