"""A manifest names what its numbers may depend on."""

from __future__ import annotations

import pytest

from yarnlab.provenance import package_versions


@pytest.mark.parametrize("name", ["flash-attn", "flash-attn-3", "liger-kernel", "triton", "nvidia-cudnn-cu13"])
def test_kernels_that_are_installed_are_recorded(name, tmp_path, monkeypatch):
    """Attention and loss take them without being asked, so that their versions belong to a result."""
    before = package_versions()
    folder = tmp_path / f"{name.replace('-', '_')}-99.1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 99.1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert package_versions() == before | {name: "99.1"}
