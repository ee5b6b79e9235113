"""A manifest names what its numbers may depend on."""

from __future__ import annotations

import subprocess
import sys

import pytest

from yarnlab import provenance
from yarnlab.provenance import lock_digest, package_versions, replacing, sha256_of

WRITER = """
import sys
from pathlib import Path
from yarnlab.provenance import replacing
with replacing(Path(sys.argv[1])) as draft:
    draft.write_text("half")
    print("writes", flush=True)
    sys.stdin.read()
"""


def test_without_locks_what_may_be_written_by_another_stays(tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", refuse)
    (tmp_path / ".table.csv.ab12cd_8.csv").touch()
    with replacing(tmp_path / "table.csv") as draft:
        draft.write_text("new")
    assert {path.name for path in tmp_path.iterdir()} == {".table.csv.ab12cd_8.csv", "table.csv"}


def test_half_a_file_of_a_killed_process_goes_when_it_is_written_again(tmp_path):
    """While the process lives it stays, and so does what only looks like it."""
    table, others = (
        tmp_path / "table[1].csv",
        [".table[1].csv.settings", ".table[1].csv.ab12cd_8.json", ".env.template"],
    )
    for name in others:
        (tmp_path / name).touch()
    with subprocess.Popen([sys.executable, "-c", WRITER, table], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as one:
        one.stdout.readline()
        with replacing(table) as draft:
            draft.write_text("new")
        assert len(list(tmp_path.iterdir())) == len(others) + 2
        one.kill()
    with replacing(table) as draft:
        draft.write_text("newer")
    assert {path.name for path in tmp_path.iterdir()} == {*others, table.name} and table.read_text() == "newer"


@pytest.mark.parametrize("name", ["flash-attn", "flash-attn-3", "liger-kernel", "triton", "nvidia-cudnn-cu13"])
def test_kernels_that_are_installed_are_recorded(name, tmp_path, monkeypatch):
    """Attention and loss take them without being asked, so that their versions belong to a result."""
    before = package_versions()
    folder = tmp_path / f"{name.replace('-', '_')}-99.1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 99.1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert package_versions() == before | {name: "99.1"}


@pytest.mark.parametrize(
    ("cpu", "gpu", "found"),
    [
        ("numpy=={numpy}  # pinned\ntorch=={torch}\n", "numpy=={numpy}\ntriton==0.1\n", "cpu.lock"),
        ("numpy=={numpy}\ntorch==0.1\n", "torch=={torch}\n", "gpu.lock"),
        ("numpy=={numpy}.1\n", "no-such-package==1\n", None),
        (None, None, None),
    ],
)
def test_a_lock_is_named_where_its_packages_are_installed(tmp_path, monkeypatch, cpu, gpu, found):
    """Whatever the environment is called: in conda's, or after `pip install` by hand, a manifest claims no lock that
    it does not have. A build for CPUs is the version that the lock pins."""
    versions = {name: package_versions()[name].partition("+")[0] for name in ("numpy", "torch")}
    (tmp_path / "envs").mkdir()
    for name, text in (("cpu.lock", cpu), ("gpu.lock", gpu)):
        if text is not None:
            (tmp_path / "envs" / name).write_text("# made by pip\n\n" + text.format(**versions))
    monkeypatch.setattr(provenance, "project_root", lambda: tmp_path)
    lock_digest.cache_clear()
    try:
        assert lock_digest() == (sha256_of(tmp_path / "envs" / found) if found else None)
    finally:
        lock_digest.cache_clear()
