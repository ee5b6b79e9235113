"""`envs/run` as its caller sees it: arguments, folders, exit codes, speed, options."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from project import Project


def test_arguments_arrive_as_given(ready: Project) -> None:
    """Spaces, quotes, empty words, globs, options and line breaks reach CMD unchanged."""
    arguments = ["a b", "", "it's", '"q"', "*", "$HOME", "--gpu", "-x", "--", "two\nlines", "é×"]
    assert ready.run("printf", "<%s>", *arguments).stdout == "".join(f"<{word}>" for word in arguments)


def test_caller_folder_is_kept(ready: Project, tmp_path: Path) -> None:
    """CMD runs where the caller is, however the script is named, and finds the project's environment."""
    elsewhere = tmp_path / "else where"
    elsewhere.mkdir()
    result = ready.run("sh", "-c", 'pwd -P; echo "$VIRTUAL_ENV"', cwd=elsewhere)
    assert result.stdout.splitlines() == [str(elsewhere.resolve()), str(ready.root.resolve() / ".venv")]
    inside = ready.root / "envs"
    relative = subprocess.run(["./run", "pwd"], cwd=inside, env=ready.variables, capture_output=True, text=True)
    assert relative.stdout.strip() == str(inside.resolve())
    assert ready.calls() == []


def test_environment_comes_first(ready: Project) -> None:
    """The environment's commands win over the caller's, and PYTHONHOME can't redirect its Python."""
    result = ready.run("sh", "-c", 'command -v python; echo "${PYTHONHOME-unset}"', PYTHONHOME="/nowhere")
    assert result.stdout.splitlines() == [str(ready.root.resolve() / ".venv/bin/python"), "unset"]


@pytest.mark.parametrize("code", [0, 1, 7, 130])
def test_exit_code_passes_through(ready: Project, code: int) -> None:
    """The caller gets CMD's own exit code."""
    assert ready.run("sh", "-c", f"exit {code}").returncode == code


def test_input_and_output_belong_to_the_command(project: Project) -> None:
    """Even while setting up, standard input is kept for CMD and standard output is CMD's alone."""
    result = project.run("cat", stdin="two\nlines\n")
    assert result.stdout == "two\nlines\n"
    assert "creating .venv" in result.stderr


def test_unknown_command_is_one_message(ready: Project) -> None:
    """A command that exists nowhere gives the shell's usual code and names where it was sought."""
    result = ready.run("no-such-command")
    assert (result.returncode, result.stdout) == (127, "")
    assert result.stderr == "envs/run: no-such-command: command not found, neither in .venv nor on PATH.\n"


def test_usage(project: Project) -> None:
    """Without CMD the usage goes to standard error with code 2, on request to standard output with code 0."""
    for arguments in ([], ["--gpu"]):
        result = project.run(*arguments)
        assert (result.returncode, result.stdout) == (2, "")
        assert result.stderr.startswith("usage: envs/run [--gpu] [--cluster] CMD")
    asked = project.run("--help")
    assert asked.returncode == 0 and asked.stdout.startswith("usage: envs/run") and asked.stderr == ""
    assert project.calls() == []


def test_unknown_option_is_one_message(project: Project) -> None:
    """An unknown option sets nothing up and is named."""
    result = project.run("--cpu", "true")
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1 and "unknown option --cpu" in result.stderr
    assert project.calls() == []


def test_no_suitable_python_is_one_message(project: Project, tmp_path: Path) -> None:
    """With an old Python only, or an unsuitable YARNLAB_PYTHON, the message says what is needed."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("bash", "env", "dirname"):
        (tools / tool).symlink_to(shutil.which(tool) or pytest.fail(f"{tool} is missing"))
    old = tools / "python3"
    old.write_text("#!/usr/bin/env bash\nexit 1\n")
    old.chmod(0o755)
    result = project.run("true", PATH=str(tools), YARNLAB_PYTHON="")
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1 and "no Python >= 3.11 found" in result.stderr
    for wrong in (str(old), "/no/such/python"):
        result = project.run("true", YARNLAB_PYTHON=wrong)
        assert result.returncode == 1
        assert result.stderr.count("\n") == 1 and f"YARNLAB_PYTHON={wrong} is not" in result.stderr


def test_starts_in_a_fifth_of_a_second(ready: Project) -> None:
    """A fresh environment costs less than 0.2 s before CMD runs (best of ten: the machine may be busy)."""
    shutil.copy(Path(__file__).resolve().parents[2] / "envs" / "cpu.lock", ready.lock())
    assert ready.run("true").returncode == 0
    command, seconds = [str(ready.root / "envs" / "run"), "true"], []
    for _ in range(10):
        began = time.perf_counter()
        subprocess.run(command, env=ready.variables, check=True, capture_output=True)
        seconds.append(time.perf_counter() - began)
    assert min(seconds) < 0.2, f"{seconds} with load {os.getloadavg()}"
