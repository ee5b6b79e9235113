"""The lock files: pinned, the same versions for CPU and GPU, and nothing in them without a reason."""

import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
CUDA = re.compile(r"^(nvidia-|cuda-|triton$)")


def lines(name: str) -> list[str]:
    text = (ROOT / "envs" / name).read_text().splitlines()
    return [line for line in text if line and not line.startswith("#")]


def pins(kind: str) -> dict[str, str]:
    return {canonicalize_name(name): version for name, version in (x.split("==") for x in lines(f"{kind}.lock"))}


def top_level() -> list[Requirement]:
    return [Requirement(line.split("#")[0]) for line in lines("requirements.in")]


@pytest.mark.parametrize("kind", ["cpu", "gpu", "cluster"])
def test_every_package_is_pinned_once_to_a_public_version(kind: str) -> None:
    """One `name==version` a line, sorted, and no local version such as +cpu that only one index serves."""
    entries = lines(f"{kind}.lock")
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", entry) for entry in entries)
    names = [canonicalize_name(entry.split("==")[0]) for entry in entries]
    assert names == sorted(set(names))


def test_gpu_lock_is_the_cpu_lock_and_more() -> None:
    """A GPU machine runs the same versions; CUDA packages are in its lock only."""
    cpu, gpu = pins("cpu"), pins("gpu")
    assert cpu.items() <= gpu.items()
    assert not any(CUDA.match(name) for name in cpu)
    assert any(CUDA.match(name) for name in gpu)


def test_every_top_level_package_has_a_reason_and_a_pin() -> None:
    """requirements.in says why each package is there, and the lock holds a version it allows."""
    assert all(re.search(r"\S\s+# \w", line) for line in lines("requirements.in"))
    cpu = pins("cpu")
    assert all(requirement.specifier.contains(cpu[canonicalize_name(requirement.name)]) for requirement in top_level())


def test_project_dependencies_are_top_level() -> None:
    """What pyproject.toml declares is what requirements.in lists."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {canonicalize_name(Requirement(text).name) for text in project["dependencies"]}
    assert declared <= {canonicalize_name(requirement.name) for requirement in top_level()}


def test_no_orphans() -> None:
    """Every package of the CPU lock is needed, directly or through others, by the top-level list."""
    cpu, reached = pins("cpu"), set()
    waiting = [(requirement.name, frozenset(requirement.extras)) for requirement in top_level()]
    while waiting:
        node = (name, extras) = waiting.pop()
        if node in reached or canonicalize_name(name) not in cpu:
            continue
        reached.add(node)
        for needed in map(Requirement, metadata.requires(name) or []):
            if needed.marker is None or any(needed.marker.evaluate({"extra": e}) for e in ("", *extras)):
                waiting.append((needed.name, frozenset(needed.extras)))
    assert {canonicalize_name(name) for name, _ in reached} == set(cpu)


def test_the_cluster_lock_fits_on_the_cpu_lock() -> None:
    """It adds packages and changes none, is what its .in says, and needs nothing that is in neither lock."""
    cluster, cpu = pins("cluster"), pins("cpu")
    wanted = [Requirement(line.split("#")[0]) for line in lines("requirements-cluster.in")]
    assert {canonicalize_name(requirement.name) for requirement in wanted} == set(cluster)
    assert all(requirement.specifier.contains(cluster[canonicalize_name(requirement.name)]) for requirement in wanted)
    assert not set(cluster) & set(cpu)
    # The requirements of these versions, from their metadata; pip is not asked, since it is told --no-deps.
    needed = ["numpy<3,>=2.4.5", "pandas<4,>=2.3.3", "pyyaml<7,>=6.0.3", "throttler<2,>=1.2.2"]
    needed += ["snakemake-interface-common<2,>=1.23.0", "snakemake-interface-executor-plugins<10,>=9.4.0"]
    assert cluster == {"snakemake-executor-plugin-slurm": "2.8.0", "snakemake-executor-plugin-slurm-jobstep": "0.6.1"}
    for requirement in map(Requirement, needed):
        assert requirement.specifier.contains(cpu[canonicalize_name(requirement.name)]), requirement
