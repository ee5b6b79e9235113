"""`precision: auto` is what was measured on the machine; without a measurement the processor's flags decide."""

from __future__ import annotations

import pytest

from yarnlab import precision
from yarnlab.machine.processor import processor_multiplies_bf16


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
    assert processor_multiplies_bf16(file) is expected


def test_what_is_named_is_what_is_used():
    assert precision.resolve_precision("fp32") == "fp32"
    assert precision.resolve_precision("bf16") == "bf16"
    assert precision.resolve_precision("auto") in ("bf16", "fp32")


@pytest.mark.parametrize("measured", ["bf16", "fp32"])
@pytest.mark.parametrize("flag", [True, False])
def test_what_was_measured_outweighs_the_flags(monkeypatch, measured, flag):
    monkeypatch.setattr(precision, "processor_multiplies_bf16", lambda: flag)
    monkeypatch.setattr(precision, "this_machine", lambda: {"precision": measured})
    assert precision.resolve_precision("auto") == measured
    monkeypatch.setattr(precision, "this_machine", dict)
    assert precision.resolve_precision("auto") == ("bf16" if flag else "fp32")
