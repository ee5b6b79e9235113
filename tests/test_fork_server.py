"""A job handed to the fork server must be indistinguishable from one that was started by itself."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from yarnlab import fork_server
from yarnlab.processes import watch

SERVER = "import sys; from pathlib import Path; from yarnlab import fork_server; fork_server.MODULES = (); "
SERVER += "from yarnlab.processes import watch; fork_server.serve(Path(sys.argv[1]), watch(int(sys.argv[2])))"
# `mirror` waits for another process, so it serves as a job that lasts.
LASTING = "import sys; from yarnlab import fork_server; fork_server.VERBS = ('mirror',); "
LASTING += "sys.exit(fork_server.delegate(sys.argv[1:]))"


def appears(condition, seconds: float = 20.0) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if condition():
            return True
        time.sleep(0.02)
    return False


@pytest.fixture
def parent():
    """A process that lives until the test ends it."""
    with subprocess.Popen(["sleep", "300"]) as process:
        yield process
        process.kill()


@pytest.fixture
def listening(tmp_path, parent):
    """The environment in which a fork server listens, and that process."""
    folder = tmp_path / "w"
    folder.mkdir()
    with subprocess.Popen([sys.executable, "-c", SERVER, str(folder), str(parent.pid)]) as server:
        assert appears(lambda: accepts(folder / "socket"))
        yield {**os.environ, fork_server.SOCKET: str(folder / "socket")}, server
        server.kill()


def accepts(path: Path) -> bool:
    """Whether a listener takes connections there: its socket is a file a moment before that."""
    with socket.socket(socket.AF_UNIX) as connection:
        return connection.connect_ex(str(path)) == 0


def yarnlab(*arguments: str, environment: dict[str, str], folder: Path) -> tuple[int, str, str]:
    command = [sys.executable, "-m", "yarnlab", *arguments]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


def test_output_folder_and_exit_code_are_those_of_a_job_by_itself(listening, tmp_path):
    """A user's mistake: same code and words, about the client's own folder; a wrong call: same code."""
    environment, server = listening
    alone = {k: v for k, v in environment.items() if k != fork_server.SOCKET}
    mistake = ("table", "nothing", "--study-dir", "here")
    by_itself = yarnlab(*mistake, environment=alone, folder=tmp_path)
    assert by_itself[0] == 1 and "here" in by_itself[2]
    assert yarnlab(*mistake, environment=environment, folder=tmp_path) == by_itself
    assert yarnlab("table", environment=environment, folder=tmp_path)[0] == 2
    assert server.poll() is None


def test_without_a_listener_the_command_runs_by_itself(tmp_path, monkeypatch):
    monkeypatch.setenv(fork_server.SOCKET, str(tmp_path / "nobody"))
    assert fork_server.delegate(["table", "x"]) is None
    monkeypatch.delenv(fork_server.SOCKET)
    assert fork_server.delegate(["table", "x"]) is None


@pytest.mark.parametrize(
    ("job", "code"), [(b"", None), (b"1\n", 1), (b"1\n137\n", 137)], ids=["before", "after", "job"]
)
def test_a_listener_that_dies_ends_in_no_traceback(tmp_path, monkeypatch, capfd, job, code):
    """Before it has taken the job, the command runs by itself; after, the job died with it and has failed, which is said."""

    def die(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        received = b""
        while not received.endswith(b'"}}'):  # all of the request but its newline
            received += connection.recv(1)
        connection.sendall(job)
        connection.close()  # with that unread: the client's connection is reset

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        listener.listen()
        monkeypatch.setenv(fork_server.SOCKET, str(tmp_path / "socket"))
        thread = threading.Thread(target=die, args=(listener,))
        thread.start()
        try:
            assert fork_server.delegate(["table", "x", "--study-dir", "there"]) == code
            assert capfd.readouterr().err.startswith("error: table x was killed (SIGKILL)") == (code is not None)
        finally:
            thread.join()
            for number, handler in handlers.items():
                signal.signal(number, handler)


def test_where_jobs_run_elsewhere_there_is_none(monkeypatch):
    """On a cluster's login node nothing is started, and jobs inherit no socket that they might find there."""
    monkeypatch.setenv(fork_server.SOCKET, "/some/socket")
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a process was started"))
    fork_server.start(local=False)
    assert fork_server.SOCKET not in os.environ


def test_its_socket_has_a_path_that_can_be_bound(tmp_path, monkeypatch):
    """However long the name of TMPDIR is; nothing is left there."""
    place = tmp_path / ("x" * 90)
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: None)
    monkeypatch.delenv(fork_server.SOCKET, raising=False)
    fork_server.start()
    path = Path(os.environ[fork_server.SOCKET])
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
    shutil.rmtree(path.parent)
    assert list(place.iterdir()) == []


@pytest.mark.parametrize("missing", ["folder", "process"])
def test_a_run_without_room_for_it_goes_on(tmp_path, monkeypatch, missing):
    """It only saves time: with no usable /tmp, or no process to be had, jobs import for themselves."""
    monkeypatch.setenv(fork_server.SOCKET, "/of/an/earlier/run")
    if missing == "folder":
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "full"))
    else:
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        monkeypatch.setattr(sys, "executable", str(tmp_path / "nothing"))
    fork_server.start()
    assert fork_server.SOCKET not in os.environ


def test_light_commands_are_not_handed_over(listening, monkeypatch):
    """They would only wait for the imports of others."""
    monkeypatch.setenv(fork_server.SOCKET, listening[0][fork_server.SOCKET])
    assert fork_server.delegate(["check", "x"]) is None
    assert fork_server.delegate([]) is None


@pytest.fixture
def lasting(listening, parent, tmp_path):
    """A client whose job lasts, and a function that says whether the job lives."""
    arguments = ["mirror", "--study-dir", str(tmp_path / "results"), "--parent", str(parent.pid)]
    lock = tmp_path / "results" / "tracking" / "mirror.lock"
    with subprocess.Popen([sys.executable, "-c", LASTING, *arguments], env=listening[0]) as client:
        assert appears(lock.exists)
        job = next(int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit() and _holds(p, lock))
        yield client, watch(job)
        client.kill()


def _holds(process: Path, file: Path) -> bool:
    try:
        return any(os.readlink(link) == str(file) for link in (process / "fd").iterdir())
    except OSError:
        return False


linux = pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for the job in /proc")


@linux
def test_signals_reach_the_job(lasting):
    """SIGTERM, as the workflow sends it, ends the job, and the client tells how it ended."""
    client, lives = lasting
    assert lives()
    client.send_signal(signal.SIGTERM)
    assert client.wait(20) == 128 + signal.SIGTERM
    assert not lives()


@linux
def test_a_killed_client_takes_its_job_with_it(lasting):
    """Otherwise a second attempt would meet the first one's job at work."""
    client, lives = lasting
    client.kill()
    assert appears(lambda: not lives())


@linux
def test_a_client_that_is_gone_before_its_turn_leaves_no_job(listening, parent, tmp_path):
    """It was killed while it waited for the imports; its request is still in the queue."""
    lock = tmp_path / "results" / "tracking" / "mirror.lock"
    arguments = ["mirror", "--study-dir", str(tmp_path / "results"), "--parent", str(parent.pid)]
    request = {"arguments": arguments, "folder": str(tmp_path), "environment": dict(os.environ)}
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(listening[0][fork_server.SOCKET])
        socket.send_fds(connection, [b"\0"], [0, 1, 2])
        connection.sendall(json.dumps(request).encode() + b"\n")
    time.sleep(3)  # longer than the job needs to take its lock
    assert not [p for p in Path("/proc").iterdir() if p.name.isdigit() and _holds(p, lock)]
    assert listening[1].poll() is None


@linux
def test_the_warm_process_ends_with_its_parent(listening, parent):
    environment, server = listening
    parent.kill()
    parent.wait()
    assert server.wait(20) == 0
    assert not Path(environment[fork_server.SOCKET]).parent.exists()
