"""Jobs without the cost of imports: one process that has them done forks a child for every job of a run.

Importing torch and transformers takes 4-8 s of CPU, and a study on one machine has dozens of jobs. The workflow
starts one fork server (`start`); `python -m yarnlab` hands its command over to it (`delegate`) and passes on
signals and the exit code. Where nobody listens (another machine, a command by hand) the command runs as usual, so
nothing depends on the fork server but time.

The fork server only imports: no tensor, no thread exists in it, so a forked job starts from a clean state.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

from yarnlab.errors import killed
from yarnlab.processes import hold_environment, start_apart, watch

SOCKET = "YARNLAB_FORK_SERVER"
VERBS = ("train", "evaluate", "analyse", "table", "figure", "report")
MODULES = ("pandas", "pyarrow.parquet", "scipy.stats", "altair", "torch", "transformers.models.llama.modeling_llama")
LONGEST_PLACE = 80  # bytes of a folder's name: a socket's whole path may have 103 on macOS, 107 on Linux
STEP_S = 0.05  # how often a job's end and its client's are looked for


def start(*, local: bool = True) -> None:
    """Start the fork server for the calling one, and tell jobs of it through the environment.

    Not where jobs run elsewhere (`local` false): a login node is no place for it, and a job that finds the socket,
    since it shares the machine or its /tmp, would compute there instead of in its own allocation.
    """
    os.environ.pop(SOCKET, None)
    if not local:
        return
    try:
        place = tempfile.gettempdir()
        folder = tempfile.mkdtemp(prefix="yarnlab-", dir=place if len(os.fsencode(place)) <= LONGEST_PLACE else "/tmp")
        command = [sys.executable, "-m", "yarnlab.fork_server", folder, str(os.getpid())]
        start_apart(command)
    except OSError:
        return  # no room in /tmp, or no process: every job then imports for itself
    os.environ[SOCKET] = str(Path(folder) / "socket")


def delegate(arguments: list[str]) -> int | None:
    """Have the fork server run `yarnlab ARGUMENTS…` and return its exit code; None if there is no such process."""
    if SOCKET not in os.environ or not arguments or arguments[0] not in VERBS:
        return None
    with socket.socket(socket.AF_UNIX) as connection:
        answers = connection.makefile("r", encoding="ascii")
        try:
            connection.connect(os.environ[SOCKET])
            request = {"arguments": arguments, "folder": os.getcwd(), "environment": dict(os.environ)}
            socket.send_fds(connection, [b"\0"], [0, 1, 2])
            connection.sendall(json.dumps(request).encode() + b"\n")
            job = answers.readline()
        except OSError:  # nobody listens, or it was killed before it took the job
            return None
        if not job:
            return None

        def pass_on(number: int, frame: FrameType | None) -> None:
            with suppress(ProcessLookupError):  # it has just ended
                os.kill(int(job), number)

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, pass_on)
        try:
            end = answers.readline()
        except OSError:
            end = ""
        # Without an end the supervisor was killed, and the job with it.
        if not end or int(end) == 128 + signal.SIGKILL:
            print(f"error: {killed(' '.join(arguments[:2]))}", file=sys.stderr)
        return int(end) if end else 1


def serve(folder: Path, parent_lives: Callable[[], bool]) -> None:
    """Import, then fork a supervisor for every client until the parent has ended."""
    import importlib

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # supervisors are not waited for
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "socket"))
        listener.listen(64)
        for module in MODULES:
            importlib.import_module(module)
        listener.settimeout(1.0)
        while parent_lives():
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                continue
            if os.fork() == 0:
                listener.close()
                _supervise(connection)
            connection.close()
    (folder / "socket").unlink()
    folder.rmdir()


def _supervise(connection: socket.socket) -> None:
    """Run one client's job in a child; end the job if the client is gone. Does not return."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    connection.setblocking(True)
    _, streams, _, _ = socket.recv_fds(connection, 1, 3)
    with connection.makefile("r", encoding="utf-8") as requests:
        request = json.loads(requests.readline())
    job = os.fork()
    if job == 0:
        connection.close()
        _run(request, streams)
    with suppress(OSError):  # the job does the same; whoever is first
        os.setpgid(job, job)
    for stream in streams:
        os.close(stream)
    with suppress(OSError):  # a client that is gone already is noticed below
        connection.sendall(f"{job}\n".encode())
    while True:
        ended, status = os.waitpid(job, os.WNOHANG)
        if ended:
            break
        if _is_gone(connection):
            os.killpg(job, signal.SIGKILL)  # the client was killed: so is its job, with what that has forked
            os.waitpid(job, 0)
            os._exit(0)
    code = os.waitstatus_to_exitcode(status)
    connection.sendall(f"{code if code >= 0 else 128 - code}\n".encode())
    os._exit(0)


def _is_gone(connection: socket.socket) -> bool:
    """Whether the client has closed its end; waits STEP_S for that."""
    try:
        return bool(select.select([connection], [], [], STEP_S)[0]) and not connection.recv(1)
    except OSError:
        return True


def _run(request: dict[str, Any], streams: list[int]) -> None:
    """Become the client's process: its streams, folder, environment and command. Does not return."""
    os.setpgid(0, 0)  # a group of its own, so that all that it forks can be ended with it
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = ["yarnlab", *request["arguments"]]
    code = 1
    try:
        from yarnlab.cli import main

        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    hold_environment()
    serve(Path(sys.argv[1]), watch(int(sys.argv[2])))
