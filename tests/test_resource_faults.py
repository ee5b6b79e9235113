"""A machine that refuses something: the command ends with one message or goes on, and given again where nothing is
refused it comes to the same results. Real limits, mounts and users, where the machine allows them."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[1]
TARGET = "results/smoke/evaluations/perplexity/base.manifest.json"
OUTCOME = ("models/base/model.safetensors", "evaluations/perplexity/base.parquet", "data/train/tokens.npy")


def run(folder: Path, *, before: Sequence[str] = (), **how) -> subprocess.CompletedProcess:
    """The command that makes a tokenizer, two corpora, the base and an evaluation of it in `folder`."""
    snakefile = ["snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(folder), "--cores", "2"]
    environment = {**os.environ, **how.pop("environment", {})}
    return subprocess.run(
        [*before, sys.executable, "-m", *snakefile, TARGET, "--config", "study=smoke"],
        capture_output=True, text=True, cwd=ROOT, env=environment, check=False, timeout=600, **how,
    )  # fmt: skip


def outcome(folder: Path) -> list[bytes]:
    return [(folder / "results" / "smoke" / name).read_bytes() for name in OUTCOME]


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A folder in which nothing was refused; tests must not change it."""
    folder = tmp_path_factory.mktemp("undisturbed")
    done = run(folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.fixture(scope="module")
def undisturbed(finished) -> list[bytes]:
    return outcome(finished)


def refused(done: subprocess.CompletedProcess, *reasons: str) -> None:
    """It failed with a message that names one of these reasons, and without a traceback."""
    said = done.stdout + done.stderr
    assert done.returncode != 0, said[-3000:]
    assert "Traceback" not in said, said[-6000:]
    assert any(reason in said for reason in reasons), said[-6000:]


def comes_to_the_same(folder: Path, undisturbed: list[bytes]) -> None:
    done = run(folder)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    assert outcome(folder) == undisturbed


@pytest.fixture
def mounted(tmp_path) -> Iterator[Callable[[str], Path]]:
    """Puts a small disk of its own below results/: (mount options) → the folder that results/ is in."""
    disk = tmp_path / "results"
    disk.mkdir()

    def mount(options: str) -> Path:
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", disk], capture_output=True, check=False)
        if done.returncode:
            pytest.skip("only root, outside of most containers, can mount")
        return tmp_path

    yield mount
    subprocess.run(["umount", "--lazy", disk], capture_output=True, check=False)


def remount(folder: Path, options: str) -> None:
    """Once nothing writes there any more: what publishes to MLflow ends a moment after the command."""
    command, deadline = ["mount", "-o", f"remount,{options}", folder / "results"], time.monotonic() + 120
    while (done := subprocess.run(command, capture_output=True, text=True, check=False)).returncode:
        assert "busy" in done.stderr and time.monotonic() < deadline, done.stderr
        time.sleep(0.5)


def test_a_disk_that_is_full_at_one_write_after_another(mounted, undisturbed):
    """It grows by so little that each attempt gets only a little farther."""
    folder, size, failed = mounted("size=256k"), 256, 0
    while (done := run(folder)).returncode:
        refused(done, "No space left on device", "the disk is full", "disk is full")
        failed += 1
        size = int(size * 1.4)
        assert size < 64 * 1024, "it never has enough"
        remount(folder, f"size={size}k")
    assert failed >= 5 and outcome(folder) == undisturbed


def yarnlab(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "yarnlab", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False, timeout=600)


def test_a_disk_that_fills_during_the_analysis(mounted, finished, tmp_path):
    """Tables, figures and report of what there is; what was written before is whole or was not there."""
    study = Path("results") / "smoke"
    whole = Path(shutil.copytree(finished, tmp_path / "whole"))
    steps = (("describe", "smoke", "--study-dir", str(study)), ("analyse", "--study-dir", str(study)))
    steps = (*steps, ("report", "--study-dir", str(study)))
    for step in steps:
        assert yarnlab(whole, *step).returncode == 0
    folder = mounted("size=64m")
    shutil.copytree(finished / study, folder / study)
    used = sum(file.stat().st_blocks // 2 for file in (folder / study).rglob("*"))
    free, failed, todo = 16, 0, [*steps]
    while todo:
        remount(folder, f"size={used + free}k")
        done = yarnlab(folder, *todo[0])
        if done.returncode == 0:
            todo.pop(0)
            continue
        refused(done, "No space left on device", "the disk is full")
        failed, free = failed + 1, free * 3
        assert free < 64 * 1024, "it never has enough"
    assert failed >= 3
    tables = sorted((whole / study / "tables").glob("*.csv"))
    assert tables and all((folder / study / "tables" / file.name).read_bytes() == file.read_bytes() for file in tables)


def test_results_that_can_only_be_read(mounted, undisturbed):
    folder = mounted("size=64m")
    remount(folder, "ro")
    refused(run(folder), "results can't be written")
    remount(folder, "rw")
    comes_to_the_same(folder, undisturbed)
    remount(folder, "ro")
    done = run(folder)  # everything is there
    assert done.returncode == 0 and "Nothing to be done" in done.stdout + done.stderr, done.stderr[-3000:]
    remount(folder, "rw")


def small_files() -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))


def test_a_largest_size_of_files(tmp_path, undisturbed):
    refused(run(tmp_path, preexec_fn=small_files), "File too large")
    comes_to_the_same(tmp_path, undisturbed)


@pytest.mark.parametrize(("soft", "hard"), [(18, 18), (18, 4096)])
def test_few_open_files(tmp_path, undisturbed, soft, hard):
    """The limit is raised where that is allowed; where it is not, one message says so before anything runs."""

    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    done = run(tmp_path, preexec_fn=few)
    if hard > soft:
        assert done.returncode == 0 and outcome(tmp_path) == undisturbed, done.stderr[-3000:]
    else:
        refused(done, "a process may have 18 files open here")
        comes_to_the_same(tmp_path, undisturbed)


MEMORY = Path("/sys/fs/cgroup/memory")  # version 1 of the kernel's interface, or else version 2
LIMIT = "memory.limit_in_bytes" if MEMORY.is_dir() else "memory.max"


@pytest.fixture
def memory() -> Iterator[Callable[[int], Callable[[], None]]]:
    """A group of processes of little memory: bytes → what a process calls to be of it."""
    group = (MEMORY if MEMORY.is_dir() else MEMORY.parent) / f"yarnlab-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / LIMIT).write_text("-1" if MEMORY.is_dir() else "max")
    except OSError:
        pytest.skip("only root, where it may make groups of processes, can limit their memory together")

    def limited(size: int) -> Callable[[], None]:
        (group / LIMIT).write_text(str(size))
        return lambda: (group / "cgroup.procs").write_text(str(os.getpid()))

    yield limited
    deadline = time.monotonic() + 120
    while (group / "cgroup.procs").read_text() and time.monotonic() < deadline:
        time.sleep(0.5)
    group.rmdir()


def test_little_memory(tmp_path, undisturbed, memory):
    """The kernel kills the largest process, a job, the one that forks jobs or the coordinator: one message or none, if
    nobody is left to say it. More memory, step by step, and the same command go on."""
    killed, size = 0, 300_000_000
    while (done := run(tmp_path, preexec_fn=memory(size))).returncode:
        said = done.stdout + done.stderr
        assert "Traceback" not in said, said[-6000:]
        assert done.returncode == -signal.SIGKILL or "killed" in said.lower(), said[-6000:]
        killed += 1
        size = int(size * 1.4)
        assert size < 8_000_000_000, "it never has enough"
    assert killed and outcome(tmp_path) == undisturbed


def test_two_coordinators_at_once(tmp_path, undisturbed):
    """One makes the results, the other one says that they are being made."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(tmp_path)]
    command += ["--cores", "1", TARGET, "--config", "study=smoke"]
    pair = [
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(2)
    ]
    said = [one.communicate(timeout=600)[0] for one in pair]
    assert sorted(one.returncode for one in pair) in ([0, 0], [0, 1]), said[0][-2000:] + said[1][-2000:]
    for one, text in zip(pair, said, strict=True):
        assert "Traceback" not in text
        assert one.returncode == 0 or "cannot be locked" in text, text[-2000:]
    assert outcome(tmp_path) == undisturbed


def test_a_clock_that_was_set_back(tmp_path, undisturbed):
    """All that was written so far is of tomorrow: it holds what it held, and costs nothing to be put back."""
    assert run(tmp_path).returncode == 0
    model = tmp_path / "results/smoke/models/base/manifest.json"
    before, tomorrow = model.read_bytes(), time.time() + 86400
    for file in (tmp_path / "results" / "smoke").rglob("*"):
        if file.is_file() and "perplexity" not in file.parts:
            os.utime(file, (tomorrow, tomorrow))
    comes_to_the_same(tmp_path, undisturbed)
    assert model.read_bytes() == before


def test_results_on_another_disk_behind_a_link(tmp_path, undisturbed):
    (tmp_path / "elsewhere" / "deep").mkdir(parents=True)
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "results").symlink_to(tmp_path / "elsewhere" / "deep")
    comes_to_the_same(tmp_path / "study", undisturbed)
    assert (tmp_path / "elsewhere/deep/smoke/models/base/model.safetensors").is_file()


# To this process, root without its privileges, what is not its own is another user's.
UNPRIVILEGED = [
    "setpriv",
    *(word for kind in ("--bounding-set", "--inh-caps") for word in (kind, "-dac_override,-dac_read_search,-fowner")),
]
NOBODY = 65534


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="only root can act for another user")
def test_a_second_user_and_a_closed_umask(tmp_path, undisturbed):
    """Who may not write gets one message; who may, finds all as it was."""
    done = run(tmp_path, umask=0o077)
    assert done.returncode == 0, done.stderr[-3000:]
    assert outcome(tmp_path) == undisturbed
    places = [tmp_path, *(place for place in tmp_path.rglob("*") if not place.is_symlink())]
    assert all(place.stat().st_mode & 0o077 == 0 for place in places[1:] if place.is_dir())
    for place in places:
        os.chown(place, NOBODY, NOBODY)
        if place.is_dir():
            place.chmod(0o755)
    (tmp_path / TARGET).unlink()
    refused(run(tmp_path, before=UNPRIVILEGED), ".snakemake can't be written", "locks can't be written")
    for place in (tmp_path / ".snakemake", *(tmp_path / ".snakemake").rglob("*")):
        place.chmod(0o777)
    refused(run(tmp_path, before=UNPRIVILEGED), "smoke can't be written")
    comes_to_the_same(tmp_path, undisturbed)
