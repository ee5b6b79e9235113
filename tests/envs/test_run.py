"""`envs/run` as its caller sees it: arguments, folders, exit codes, speed, options."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from project import CAN_BE_ORDINARY, Project


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
    """The environment's commands and packages win over the caller's (`module load`, conda)."""
    foreign = {"PYTHONHOME": "/nowhere", "PYTHONPATH": "/elsewhere"}
    result = ready.run("sh", "-c", 'command -v python; echo "${PYTHONHOME-unset} ${PYTHONPATH-unset}"', **foreign)
    assert result.stdout.splitlines() == [str(ready.root.resolve() / ".venv/bin/python"), "unset unset"]


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
    assert result.stderr.count("\n") == 1 and "no Python 3.11 to 3.14 found" in result.stderr
    for wrong in (str(old), "/no/such/python"):
        result = project.run("true", YARNLAB_PYTHON=wrong)
        assert result.returncode == 1
        assert result.stderr.count("\n") == 1 and f"YARNLAB_PYTHON={wrong} is not" in result.stderr


@pytest.mark.parametrize(
    ("present", "chosen"),
    [
        ({"python3": 15, "python3.12": 12, "python3.13": 13}, "python3.13"),
        ({"python3": 15, "python3.12": 12, "python3.11": 11}, "python3.11"),
        ({"python3": 12, "python3.13": 13}, "python3"),
        ({"python3": 10, "python3.14": 14, "python3.13": 13}, "python3.14"),
        ({"python3": 15}, None),
    ],
)
def test_the_python_is_one_that_the_locks_have_packages_for(
    project: Project, tmp_path: Path, present: dict[str, int], chosen: str | None
) -> None:
    """The locks' own version, else the machine's usual one if it fits, else the newest that does; never a newer one."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("python3.11", "python3", "python3.12", "python3.13", "python3.14"):
        answer = f"echo {present[name]}" if name in present else "exit 127"
        (tools / name).write_text(
            f'#!/bin/sh\nif [ "$1" = -c ]; then {answer}\nelse echo {name} >>"$CHOSEN"; exec "$STAND_IN" "$@"; fi\n'
        )
        (tools / name).chmod(0o755)
    record = tmp_path / "chosen"
    variables = {"PATH": f"{tools}:{os.environ['PATH']}", "CHOSEN": str(record)}
    result = project.run("true", YARNLAB_PYTHON="", **variables)
    assert result.returncode == (0 if chosen else 1), result.stderr
    assert (record.read_text().splitlines() if record.exists() else []) == ([chosen] if chosen else [])
    if chosen is None:
        assert "no Python 3.11 to 3.14 found" in result.stderr
        named = project.run("true", YARNLAB_PYTHON=str(tools / "python3"), **variables)
        assert named.returncode == 0, "who names a newer Python may try it"


SHOW = ("sh", "-c", 'echo "${XDG_CACHE_HOME-unset} ${HF_TOKEN_PATH-unset}"')


def test_caches_have_a_place_without_a_home_folder(ready: Project, tmp_path: Path) -> None:
    """Snakemake needs one; where the home folder or a chosen place can be written to, nothing changes."""
    ready.variables = {k: v for k, v in ready.variables.items() if not k.startswith(("XDG_", "HF_"))}
    own = str(ready.root.resolve() / ".venv" / "cache")
    assert ready.run(*SHOW, HOME=str(tmp_path / "nowhere")).stdout == f"{own} unset\n"
    assert ready.run(*SHOW, HOME="").stdout == f"{own} unset\n"
    assert ready.run(*SHOW, HOME=str(tmp_path)).stdout == "unset unset\n"
    (tmp_path / ".cache").mkdir()
    assert ready.run(*SHOW, HOME=str(tmp_path)).stdout == "unset unset\n"
    assert ready.run(*SHOW, HOME=str(tmp_path / "nowhere"), XDG_CACHE_HOME="/mine").stdout == "/mine unset\n"


@pytest.mark.skipif(not CAN_BE_ORDINARY, reason="root may write everywhere")
@pytest.mark.parametrize("closed", ["", ".cache"])
def test_a_read_only_home_keeps_its_login(ready: Project, tmp_path: Path, closed: str) -> None:
    """The token of the hub is read from where it was, although caches are elsewhere."""
    ready.variables = {k: v for k, v in ready.variables.items() if not k.startswith(("XDG_", "HF_"))}
    ready.be_ordinary()
    token = tmp_path / "home" / ".cache" / "huggingface" / "token"
    token.parent.mkdir(parents=True)
    token.touch()
    for folder in (tmp_path / "home" / ".cache", tmp_path / "home"):
        folder.chmod(0o555 if folder == tmp_path / "home" / closed or not closed else 0o755)
    shown = ready.run(*SHOW, HOME=str(tmp_path / "home")).stdout
    for folder in (tmp_path / "home", tmp_path / "home" / ".cache"):
        folder.chmod(0o755)
    assert shown == f"{ready.root.resolve() / '.venv' / 'cache'} {token}\n"


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
