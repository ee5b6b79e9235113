"""Creates or updates the project's environment from a lock file.

Called by `envs/run` with any Python >= 3.11; needs only the standard library. Says what it does on stderr,
keeps pip's own output in `<environment>/setup.log`, and writes the stamp that `envs/run` compares last.
"""

import contextlib
import errno
import fcntl
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parent.parent
FREE_GB = {"cpu": 3, "gpu": 10}
FLASH_ATTENTION = "flash-attn==2.8.3.post2"
HEARTBEAT_SECONDS = 20
SPACE_ADVICE = "Free some (`pip cache purge`), or make TMPDIR and the environment's folder lead to a larger disk."

NO_SPACE = re.compile(r"No space left on device|Disk quota exceeded|\[Errno (28|122)\]")
NO_NETWORK = re.compile(
    r"NewConnectionError|ConnectTimeoutError|ReadTimeoutError|ProxyError|SSLError|Max retries exceeded"
    r"|Connection refused|Name or service not known|name resolution|Network is unreachable"
)


class SetupError(Exception):
    """What went wrong and what to do about it, in one message."""


class Environment:
    """The files of one environment: `cpu` in .venv, `gpu` in .venv-gpu, or `cluster`, what is added to either."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.folder = ROOT / {"cpu": ".venv", "gpu": ".venv-gpu", "cluster": ".venv-cluster"}[kind]
        self.lock = ROOT / "envs" / f"{kind}.lock"
        self.python = Path(sys.executable) if kind == "cluster" else self.folder / "bin" / "python"
        self.stamp = self.folder / "stamp"
        self.log = self.folder / "setup.log"

    def wanted_stamp(self) -> bytes:
        """Everything the environment is made from; the root too, since scripts in it hold absolute paths."""
        if self.kind == "cluster":
            return self.lock.read_bytes().rstrip(b"\n")
        files = (self.lock, ROOT / "pyproject.toml")
        return b"\n".join([os.fsencode(ROOT), *(file.read_bytes().rstrip(b"\n") for file in files)])

    def is_fresh(self) -> bool:
        return self.python.exists() and self.stamp.exists() and self.stamp.read_bytes() == self.wanted_stamp()


def say(text: str) -> None:
    print(f"envs/run: {text}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def locked(environment: Environment) -> Iterator[None]:
    """One setup at a time, and none under running jobs, which share the lock (yarnlab/processes.py).

    It goes with the process, so a killed setup never blocks the next. Raises SetupError while jobs run.
    """
    name, said = environment.folder.name, False
    with open(environment.folder.with_name(f"{name}.lock"), "w") as file:
        try:
            while not (environment.is_fresh() or taken(file, fcntl.LOCK_EX)):
                if taken(file, fcntl.LOCK_SH) and not taken(file, fcntl.LOCK_EX):
                    raise SetupError(
                        f"jobs are running in {name}, whose packages must change since envs/{environment.lock.name} or "
                        "pyproject.toml has. Wait for their end, or use the new version in another clone."
                    )
                if not said:
                    say(f"another call is setting up {name}; waiting for it.")
                said = True
                time.sleep(0.1)
        except OSError as error:
            say(f"this file system has no file locks ({error.strerror}); do not start two setups, or one under jobs.")
        yield


def taken(file: IO[str], kind: int) -> bool:
    """Whether a lock of this kind could be had at once."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def diagnosis(output: str) -> str:
    """Why a step failed and what to do, from its output."""
    if NO_SPACE.search(output):
        return f"no space left on the disk. {SPACE_ADVICE}"
    if NO_NETWORK.search(output):
        return "the package index can't be reached. Check the network and `pip config list`, then call it again."
    telling = [x[:150] for x in output.splitlines() if x.strip() and not x.startswith("Requirement already")]
    return "\n    ".join(["the last lines of its output are:", *telling[-8:]])


def isolated() -> dict[str, str]:
    """The caller's variables without those that would make pip look at, or install to, another place."""
    kept = dict(os.environ)
    for name in ("PYTHONPATH", "PYTHONHOME", "PIP_TARGET", "PIP_PREFIX"):
        kept.pop(name, None)
    plain = {"PIP_NO_INPUT": "1", "PIP_PROGRESS_BAR": "off", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    return kept | plain | {"PIP_USER": "0"}


def attempt(environment: Environment, command: list[str]) -> tuple[bool, str]:
    """Runs a command with its output in the log; returns whether it succeeded, and that output."""
    with open(environment.log, "a+b") as log:
        log.write(f"\n$ {' '.join(command)}\n".encode())
        log.flush()
        start = log.tell()
        began = time.monotonic()
        process = subprocess.Popen(command, stdout=log, stderr=log, env=isolated(), cwd=ROOT)
        while True:
            try:
                code = process.wait(HEARTBEAT_SECONDS)
                break
            except subprocess.TimeoutExpired:
                latest = environment.log.read_text(errors="replace").rstrip().rpartition("\n")[2].strip()
                present = len(list(environment.folder.glob("lib/python*/site-packages/*.dist-info")))
                say(f"  {time.monotonic() - began:.0f} s, {present} packages in place: {latest[:70]}")
        log.seek(start)
        return code == 0, log.read().decode(errors="replace")


def step(environment: Environment, title: str, command: list[str]) -> None:
    """One announced, timed step. Raises SetupError that names the step, the reason and the log."""
    say(f"{title} …")
    began = time.monotonic()
    succeeded, output = attempt(environment, command)
    if not succeeded:
        raise SetupError(f"{title}: failed: {diagnosis(output)}\n  Everything it printed: {environment.log}")
    say(f"  done in {time.monotonic() - began:.0f} s")


def pip(environment: Environment, *arguments: str) -> list[str]:
    return [str(environment.python), "-I", "-m", "pip", *arguments]


def is_usable(environment: Environment) -> bool:
    """Whether the folder holds a working environment made in this place (not moved here)."""
    configuration = environment.folder / "pyvenv.cfg"
    made_here = re.compile(rf"^command = .* {re.escape(str(environment.folder))}$", re.MULTILINE)
    if not (configuration.exists() and made_here.search(configuration.read_text(errors="replace"))):
        return False
    if not environment.python.exists():
        return False
    return subprocess.run(pip(environment, "--version"), capture_output=True, env=isolated()).returncode == 0


def create(environment: Environment) -> None:
    """An empty environment. Raises SetupError without the venv module or the space for what follows."""
    if importlib.util.find_spec("venv") is None or importlib.util.find_spec("ensurepip") is None:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise SetupError(
            f"{sys.executable} has no venv module. On Debian `apt-get install python{version}-venv` "
            "adds it; elsewhere set YARNLAB_PYTHON to a full Python 3.11 to 3.14."
        )
    free, need = shutil.disk_usage(environment.folder).free / 1e9, FREE_GB[environment.kind]
    if free < need:
        raise SetupError(
            f"not enough disk space for {environment.folder}: {free:.1f} GB free, about {need} GB needed. "
            + SPACE_ADVICE
        )
    refuse_another_projects(environment)
    for entry in environment.folder.iterdir():
        shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    title = f"creating {environment.folder.name} with Python {platform.python_version()}"
    command = [sys.executable, "-I", "-m", "venv", "--prompt", "yarnlab", str(environment.folder)]
    step(environment, title, command)


def refuse_another_projects(environment: Environment) -> None:
    """A link to the environment of another copy of the project must not empty that one. Raises SetupError."""
    if not (environment.folder.is_symlink() and environment.stamp.exists()):
        return
    owner = Path(os.fsdecode(environment.stamp.read_bytes().partition(b"\n")[0]))
    if owner != ROOT and (owner / environment.folder.name).resolve() == environment.folder.resolve():
        raise SetupError(
            f"{environment.folder} leads to the environment of {owner}, which would be emptied. Remove the link to "
            "get an environment of its own here."
        )


def look_for_cpu_torch(environment: Environment) -> None:
    """Say so before a CUDA build of torch is installed, several GB that a CPU-only machine has no use for.

    Only Linux has both kinds. pip ranks 2.x.y+cpu above 2.x.y, so it takes the CPU build wherever the configured
    index offers one; asking for exactly that name finds out without downloading anything.
    """
    version = re.search(r"^torch==([\w.]+)$", environment.lock.read_text(), re.MULTILINE)
    elsewhere = sys.platform != "linux" or platform.machine() not in {"x86_64", "aarch64"}
    if version is None or elsewhere or environment.kind != "cpu":
        return
    if any(environment.folder.glob(f"lib/python*/site-packages/torch-{version[1]}*.dist-info")):
        return
    probe = ["install", "--dry-run", "--no-deps", "--quiet", "--timeout=10", "--retries=1"]
    if not attempt(environment, pip(environment, *probe, f"torch=={version[1]}+cpu"))[0]:
        say(
            f"the package index offers no CPU build of torch {version[1]}, so a larger one with CUDA is installed; "
            "to avoid that, add an index that has CPU builds with PIP_EXTRA_INDEX_URL and run this again."
        )


def install(environment: Environment) -> None:
    """Brings the environment to what the lock and pyproject.toml say."""
    if not is_usable(environment):
        create(environment)
    environment.stamp.unlink(missing_ok=True)
    look_for_cpu_torch(environment)
    packages = len(re.findall(r"^[\w.-]+==", environment.lock.read_text(), re.MULTILINE))
    title = f"installing {packages} packages from envs/{environment.lock.name}"
    # pip downloads and builds everything before it changes the environment: failing there harms nothing.
    step(environment, title, pip(environment, "install", "-r", str(environment.lock)))
    itself = ["install", "--no-deps", "--no-build-isolation", "-e", str(ROOT)]
    step(environment, "installing yarnlab itself", pip(environment, *itself))
    if environment.kind == "gpu":
        try:
            title = f"installing {FLASH_ATTENTION} (optional; compiles for long where no built one fits)"
            step(environment, title, pip(environment, "install", "--no-build-isolation", FLASH_ATTENTION))
        except SetupError:
            say(f"no flash-attn here; attention runs through PyTorch's SDPA. The reason: {environment.log}")


def install_plugins(environment: Environment) -> None:
    """Puts each of the lock's packages, which are pure Python, into a folder of its own for PYTHONPATH."""
    packages = environment.folder / "packages"
    environment.stamp.unlink(missing_ok=True)
    shutil.rmtree(packages, ignore_errors=True)
    for pin in re.findall(r"^[\w.-]+==[\w.]+$", environment.lock.read_text(), re.MULTILINE):
        name = pin.partition("==")[0]
        (packages / name).mkdir(parents=True)
        # Everything that it needs is in the environment already, and must stay as that one's lock says.
        arguments = ["install", "--no-deps", "--target", str(packages / name), pin]
        step(environment, f"installing Snakemake's SLURM plugin {pin}", pip(environment, *arguments))


def set_up(environment: Environment) -> None:
    """Makes the environment fresh; does nothing if a call that held the lock before has just done it."""
    environment.folder.mkdir(exist_ok=True)
    with locked(environment):
        if environment.is_fresh():
            return
        began, stamp = time.monotonic(), environment.wanted_stamp()
        install_plugins(environment) if environment.kind == "cluster" else install(environment)
        new = environment.stamp.with_suffix(".new")
        new.write_bytes(stamp)
        new.replace(environment.stamp)
        say(f"{environment.folder.name} is ready after {time.monotonic() - began:.0f} s.")


def main(kind: str) -> int:
    """Returns the exit code: 0, 1 after one message, or 130 when interrupted."""
    environment = Environment(kind)
    try:
        set_up(environment)
    except SetupError as error:
        say(str(error))
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        advice = SPACE_ADVICE if full else "Check that the folder exists and that you may write to it."
        say(f"{error.strerror}: {error.filename or environment.folder}. {advice}")
    except KeyboardInterrupt:
        say("interrupted; call it again to go on.")
        return 130
    else:
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
