"""A small project around the real `envs/run`, with a stand-in for Python that records what it is asked."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

SOURCES = Path(__file__).resolve().parents[2] / "envs"

# Plays both the Python that setup starts with and the one inside the environment. The setup script
# really runs; `-m venv` and `-m pip`, which would take minutes and a network, are played.
STAND_IN = r"""#!/usr/bin/env bash
real='@REAL@'
case "$*" in
    -c*) exec "$real" "$@" ;;
    *setup_environment.py*)
        shift
        exec "$real" -I -c '
import os, runpy, sys
sys.executable = os.environ["STAND_IN"]
exec(os.environ.get("BEFORE_SETUP", ""))
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")' "$@" ;;
    "-I -m venv"*)
        folder=${!#}
        echo "venv" >>"$CALLS"
        cat >/dev/null # what comes in here is lost to CMD
        sleep "${VENV_SECONDS:-0}"
        mkdir -p "$folder/bin"
        cp "$STAND_IN" "$folder/bin/python"
        echo "command = $STAND_IN $*" >"$folder/pyvenv.cfg" ;;
    "-I -m pip --version") echo "pip 26" ;;
    "-I -m pip"*)
        echo "${*:2}" >>"$CALLS"
        if [[ -n ${PIP_FAILS_ON:-} && $* =~ $PIP_FAILS_ON ]]; then
            printf '%s\n' "$PIP_SAYS"
            exit 1
        fi ;;
    *) exec "$real" "$@" ;;
esac
"""


# What lets root write everywhere, taken from it.
ORDINARY = [
    "setpriv",
    "--bounding-set",
    "-dac_override,-dac_read_search",
    "--inh-caps",
    "-dac_override,-dac_read_search",
]
CAN_BE_ORDINARY = os.geteuid() != 0 or shutil.which("setpriv") is not None


class Project:
    """A copy of envs/ with one-package lock files, in a folder whose name needs quoting."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "a project's copy"
        (self.root / "envs").mkdir(parents=True)
        for name in ("run", "setup_environment.py"):
            shutil.copy2(SOURCES / name, self.root / "envs" / name)
        for kind in ("cpu", "gpu"):
            self.lock(kind).write_text("torch==2.13.0\n")
        self.lock("cluster").write_text("a-plugin==1\n")
        (self.root / "pyproject.toml").write_text("[project]\n")
        self.calls_file = folder / "calls"
        self.stand_in = folder / "python-stand-in"
        self.stand_in.write_text(STAND_IN.replace("@REAL@", getattr(sys, "_base_executable", sys.executable)))
        self.stand_in.chmod(0o755)
        self.before: list[str] = []  # the command that runs `envs/run`
        self.variables = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "VIRTUAL_ENV"))} | {
            "CALLS": str(self.calls_file),
            "STAND_IN": str(self.stand_in),
            "YARNLAB_PYTHON": str(self.stand_in),
        }

    def be_ordinary(self) -> None:
        """Run `envs/run` as a user who can't write everywhere."""
        self.before = ORDINARY if os.geteuid() == 0 else []

    def lock(self, kind: str = "cpu") -> Path:
        return self.root / "envs" / f"{kind}.lock"

    def start(self, *arguments: str, cwd: Path | None = None, **variables: str) -> "subprocess.Popen[str]":
        """Starts `envs/run` with the arguments; keywords are further environment variables."""
        return subprocess.Popen(
            [*self.before, str(self.root / "envs" / "run"), *arguments],
            cwd=cwd or self.root,
            env=self.variables | variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(
        self, *arguments: str, stdin: str = "", cwd: Path | None = None, **variables: str
    ) -> "subprocess.CompletedProcess[str]":
        """Runs `envs/run` to its end."""
        process = self.start(*arguments, cwd=cwd, **variables)
        stdout, stderr = process.communicate(stdin, timeout=60)
        return subprocess.CompletedProcess(arguments, process.returncode, stdout, stderr)

    def calls(self) -> list[str]:
        """What the stand-in was asked to do since the last call of this function."""
        lines = self.calls_file.read_text().splitlines() if self.calls_file.exists() else []
        self.calls_file.unlink(missing_ok=True)
        return lines
