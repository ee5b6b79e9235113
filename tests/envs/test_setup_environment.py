"""How `envs/run` makes and renews the environment: once, when stale, with clear errors and no false stamp."""

import shutil
import subprocess
import sys
import time

import pytest
from project import CAN_BE_ORDINARY, Project

INSTALL = "-m pip install -r"
ITSELF = "-m pip install --no-deps --no-build-isolation -e"
LINUX_BUILDS = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has CPU and CUDA builds of torch")


def count(calls: list[str], start: str) -> int:
    return sum(call.startswith(start) for call in calls)


def test_first_call_sets_up_and_the_second_does_nothing(project: Project) -> None:
    """Lock first, then the project itself without its dependencies; the next call starts no pip."""
    result = project.run("echo", "ran")
    calls = project.calls()
    assert result.stdout == "ran\n"
    assert calls[0] == "venv" and count(calls, INSTALL) == 1
    assert calls[-1] == f"{ITSELF} {project.root.resolve()}"
    assert project.run("echo", "again").stderr == ""
    assert project.calls() == []


def test_racing_calls_set_up_once(project: Project) -> None:
    """Of several calls at once one sets up, the others wait for it, and all run their command."""
    processes = [project.start("echo", str(i), VENV_SECONDS="0.5") for i in range(4)]
    outputs = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0] * 4
    assert [stdout for stdout, _ in outputs] == [f"{i}\n" for i in range(4)]
    calls = project.calls()
    assert (count(calls, "venv"), count(calls, INSTALL), count(calls, ITSELF)) == (1, 1, 1)


JOB = """
import sys
from pathlib import Path
from yarnlab.processes import hold_environment
sys.prefix = sys.argv[1]
hold_environment()
print((Path(sys.prefix) / "stamp").exists(), flush=True)
sys.stdin.read()
"""


def job(project: Project) -> "subprocess.Popen[str]":
    """A job in the project's environment, which runs until its stdin ends."""
    command = [sys.executable, "-c", JOB, str(project.root / ".venv")]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("kind", ["cpu", "cluster"])
def test_packages_are_not_changed_under_running_jobs(ready: Project, kind: str) -> None:
    """One message, and nothing is installed nor run, until the last of them has ended; what is fresh is used."""
    option = ["--cluster"] if kind == "cluster" else []
    assert ready.run(*option, "true").returncode == 0
    ready.calls()
    with job(ready) as running:
        assert running.stdout is not None and running.stdout.readline() == "True\n"
        assert ready.run(*option, "echo", "ran").stdout == "ran\n"
        with open(ready.lock(kind), "a") as file:
            file.write("another==1\n")
        refused = ready.run(*option, "echo", "ran")
        assert (refused.returncode, refused.stdout, ready.calls()) == (1, "", [])
        assert "jobs are running in .venv" in refused.stderr and "Wait for their end" in refused.stderr
        running.communicate("")
    assert ready.run(*option, "echo", "ran").stdout == "ran\n"
    assert any("install" in call for call in ready.calls())


def test_a_job_waits_for_the_setup_at_work(project: Project) -> None:
    """It would import half of one version and half of another."""
    setup = project.start("true", VENV_SECONDS="1")
    while not project.calls_file.exists():
        time.sleep(0.01)
    with job(project) as running:
        assert running.communicate("")[0] == "True\n"
    assert setup.wait(60) == 0


@pytest.mark.parametrize("name", ["envs/cpu.lock", "pyproject.toml"])
def test_a_changed_file_renews_in_place(ready: Project, name: str) -> None:
    """A changed lock file or pyproject.toml installs again into the same environment, once."""
    with open(ready.root / name, "a") as file:
        file.write("# changed\n")
    assert ready.run("true").returncode == 0
    calls = ready.calls()
    assert count(calls, "venv") == 0 and count(calls, INSTALL) == 1
    assert ready.run("true").returncode == 0 and ready.calls() == []


def test_other_lock_leaves_the_environment_alone(ready: Project) -> None:
    """The CPU environment does not depend on the GPU lock."""
    ready.lock("gpu").write_text("torch==9\n")
    assert ready.run("true").returncode == 0 and ready.calls() == []


def test_moved_project_gets_a_new_environment(ready: Project) -> None:
    """The environment's scripts hold absolute paths, so one that came with a copied project is made anew."""
    moved = ready.root.with_name("moved")
    ready.root.rename(moved)
    ready.root = moved
    assert ready.run("sh", "-c", 'echo "$VIRTUAL_ENV"').stdout.strip() == str(moved.resolve() / ".venv")
    assert count(ready.calls(), "venv") == 1


def test_half_made_environment_is_made_anew(ready: Project) -> None:
    """An environment without a working pip (a killed setup, a removed Python) is replaced, not repaired."""
    (ready.root / ".venv" / "bin" / "python").unlink()
    assert ready.run("true").returncode == 0
    assert count(ready.calls(), "venv") == 1


@pytest.mark.parametrize("failing", ["install -r", "no-build-isolation"])
def test_failed_install_leaves_no_stamp(ready: Project, failing: str) -> None:
    """After a failure CMD has not run, the step and pip's words are shown, and the next call retries."""
    kept = ready.root / ".venv" / "kept"
    kept.touch()
    ready.lock().write_text("torch==2.13.1\n")
    result = ready.run("echo", "ran", PIP_FAILS_ON=failing, PIP_SAYS="ERROR: no matching cheese")
    assert (result.returncode, result.stdout) == (1, "")
    step = {"install -r": "installing 1 packages", "no-build-isolation": "installing yarnlab itself"}[failing]
    assert f"{step}" in result.stderr and "failed" in result.stderr
    assert "no matching cheese" in result.stderr and "setup.log" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (ready.root / ".venv" / "stamp").exists() and kept.exists()
    ready.calls()
    ready.lock().write_text("torch==2.13.0\n")
    assert ready.run("echo", "ran").stdout == "ran\n"
    assert count(ready.calls(), INSTALL) == 1, "the old lock's environment was half changed and must be renewed"


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ("Failed to establish: NewConnectionError: [Errno 111] Connection refused", "index can't be reached"),
        ("Temporary failure in name resolution", "index can't be reached"),
        (
            "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device",
            "no space left",
        ),
        ("ERROR: [Errno 122] Disk quota exceeded", "no space left"),
    ],
)
def test_reason_of_a_failed_install(project: Project, output: str, reason: str) -> None:
    """pip's ways to say 'no network' and 'disk full' become one message that says what to do."""
    result = project.run("true", PIP_FAILS_ON="install -r", PIP_SAYS=output)
    assert result.returncode == 1
    assert reason in result.stderr and "setup.log" in result.stderr and "Traceback" not in result.stderr


def test_too_little_space_is_said_before_anything_is_made(project: Project) -> None:
    """Free space is compared before a new environment is made."""
    patch = "import shutil; shutil.disk_usage = lambda path: type('usage', (), {'free': 1.2e9})"
    result = project.run("true", BEFORE_SETUP=patch)
    assert result.returncode == 1 and result.stderr.count("\n") == 1
    assert "not enough disk space" in result.stderr and "1.2 GB free, about 3 GB needed" in result.stderr
    assert project.calls() == []


def test_missing_venv_module_is_one_message(project: Project) -> None:
    """Debian's Python without python3-venv gets the name of the package to install."""
    patch = "import importlib.util as u; u.find_spec = lambda name: None"
    result = project.run("true", BEFORE_SETUP=patch)
    assert result.returncode == 1 and result.stderr.count("\n") == 1
    version = f"python{sys.version_info.major}.{sys.version_info.minor}-venv"
    assert "no venv module" in result.stderr and version in result.stderr
    assert project.calls() == []


@pytest.mark.skipif(not CAN_BE_ORDINARY, reason="root may write everywhere")
def test_unwritable_project_is_one_message(project: Project) -> None:
    """A project on a read-only place is reported with the path, not with a traceback."""
    project.be_ordinary()
    project.root.chmod(0o555)
    result = project.run("true")
    project.root.chmod(0o755)
    assert result.returncode == 1 and result.stderr.count("\n") == 1 and ".venv" in result.stderr


def test_a_file_in_the_way_is_one_message(project: Project) -> None:
    """An operating-system error names the path and shows no traceback."""
    (project.root / ".venv").touch()
    result = project.run("true")
    assert result.returncode == 1 and result.stderr.count("\n") == 1
    assert str(project.root.resolve() / ".venv") in result.stderr


def test_environment_may_be_a_link(project: Project) -> None:
    """The environment's folder may lead to another disk: it is filled there and the link stays."""
    elsewhere = project.root.with_name("large disk")
    elsewhere.mkdir()
    (elsewhere / "left over").touch()
    (project.root / ".venv").symlink_to(elsewhere)
    assert project.run("true").returncode == 0
    assert (project.root / ".venv").is_symlink() and (elsewhere / "stamp").exists()
    assert not (elsewhere / "left over").exists()


@LINUX_BUILDS
@pytest.mark.parametrize("offered", [True, False])
def test_cpu_build_of_torch(project: Project, offered: bool) -> None:
    """The configured index is asked for the CPU build; where it has none, setup says so and goes on."""
    fails = "no probe fails" if offered else r"\+cpu"
    result = project.run("true", PIP_FAILS_ON=fails, PIP_SAYS="ERROR: No matching distribution found")
    assert result.returncode == 0
    calls = project.calls()
    assert any("torch==2.13.0+cpu" in call for call in calls)
    assert any(call.startswith(INSTALL) for call in calls)
    assert ("offers no CPU build of torch 2.13.0" in result.stderr) != offered


def test_gpu_environment(project: Project) -> None:
    """--gpu has its own folder and lock, takes the CUDA build, and a failing flash-attn costs one notice."""
    result = project.run(
        "--gpu",
        "sh",
        "-c",
        'echo "$VIRTUAL_ENV"',
        PIP_FAILS_ON="flash-attn",
        PIP_SAYS="ERROR: no CUDA compiler",
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip().endswith("/.venv-gpu")
    assert "no flash-attn here" in result.stderr and "Traceback" not in result.stderr
    calls = project.calls()
    assert f"{INSTALL} {project.root.resolve()}/envs/gpu.lock" in calls
    assert not any("+cpu" in call for call in calls)
    assert not (project.root / ".venv").exists()
    shutil.rmtree(project.root / ".venv-gpu")


def test_link_to_another_copys_environment_is_refused(ready: Project) -> None:
    """Set up through a link, the other copy's environment would be emptied; it is left as it is."""
    copy = ready.root.with_name("copy")
    shutil.copytree(ready.root, copy, ignore=shutil.ignore_patterns(".venv*"))
    (copy / ".venv").symlink_to(ready.root / ".venv")
    original, ready.root = ready.root, copy
    result = ready.run("echo", "ran")
    assert (result.returncode, result.stdout) == (1, "")
    assert f"leads to the environment of {original.resolve()}" in result.stderr and "Remove the link" in result.stderr
    assert (original / ".venv" / "stamp").exists() and (original / ".venv" / "bin" / "python").exists()


PLUGIN = "-m pip install --no-deps --target"


def test_cluster_adds_each_plugin_beside_the_environment(ready: Project) -> None:
    """--cluster installs its lock once, each package into its own folder of PYTHONPATH; without it nothing changes."""
    ready.lock("cluster").write_text("# why\na-plugin==1\nb-plugin==2\n")
    show = ("sh", "-c", 'echo "$VIRTUAL_ENV $PYTHONPATH"')
    result = ready.run("--cluster", *show, PYTHONPATH="/mine")
    packages = ready.root.resolve() / ".venv-cluster" / "packages"
    path = f"{packages / 'b-plugin'}:{packages / 'a-plugin'}"
    assert result.stdout.strip() == f"{ready.root.resolve() / '.venv'} {path}"
    assert ready.calls() == [
        f"{PLUGIN} {packages / 'a-plugin'} a-plugin==1",
        f"{PLUGIN} {packages / 'b-plugin'} b-plugin==2",
    ]
    assert ready.run("--cluster", "true").stderr == "" and ready.calls() == []
    assert str(packages) not in ready.run(*show).stdout


def test_a_changed_cluster_lock_renews_the_plugin_alone(ready: Project) -> None:
    """Both options work together, and a new pin touches neither environment."""
    assert ready.run("--cluster", "true").returncode == 0
    ready.calls()
    ready.lock("cluster").write_text("a-plugin==2\n")
    assert ready.run("true").returncode == 0 and ready.calls() == []
    assert ready.run("--cluster", "true").returncode == 0
    assert [call.startswith(PLUGIN) for call in ready.calls()] == [True]
    result = ready.run("--cluster", "--gpu", "sh", "-c", 'echo "$VIRTUAL_ENV"')
    assert result.stdout.strip().endswith("/.venv-gpu")


def test_a_plugin_that_cannot_be_installed_leaves_no_stamp(ready: Project) -> None:
    result = ready.run("--cluster", "echo", "ran", PIP_FAILS_ON="--target", PIP_SAYS="ERROR: no matching cheese")
    assert (result.returncode, result.stdout) == (1, "")
    assert "SLURM plugin" in result.stderr and "no matching cheese" in result.stderr
    assert not (ready.root / ".venv-cluster" / "stamp").exists()
    assert ready.run("--cluster", "echo", "ran").stdout == "ran\n"
