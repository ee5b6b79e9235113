"""Processes for tests that train in several: forked from one that has torch imported and nothing computed.

torch can't compute in a fork of a process that has computed before, as this one will have; importing it anew would
take every test five seconds. So a process is forked between collection and the first test, and forks one for each job.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
_server: Connection | None = None


def pytest_collection_finish(session: pytest.Session) -> None:
    global _server
    if _server is not None or session.config.option.collectonly:
        return
    if not any(item.path.is_relative_to(HERE) for item in session.items):
        return
    import transformers.models.llama.modeling_llama  # noqa: F401

    _server, theirs = multiprocessing.Pipe()
    if os.fork() == 0:
        _server.close()
        _serve(theirs)
    theirs.close()


def _serve(requests: Connection) -> None:
    """Fork a process for each request until the tests have ended. Does not return."""
    while True:
        try:
            job, arguments, output, environment = requests.recv()
        except EOFError:
            os._exit(0)
        child = os.fork()
        if child == 0:
            requests.close()
            _run(job, arguments, output, environment)
        requests.send(child)
        requests.send(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def _run(job: Callable[..., None], arguments: tuple[Any, ...], output: Path, environment: dict[str, str]) -> None:
    from yarnlab.errors import EXIT_INTERRUPTED, Interruption

    os.setsid()
    os.environ.update(environment)
    log = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.stderr = sys.stdout = os.fdopen(1, "a", buffering=1)  # pytest's capture has replaced them
    code = 1
    try:
        import torch

        torch.set_num_threads(1)
        job(*arguments)
        code = 0
    except BaseException as error:
        traceback.print_exc()
        code = EXIT_INTERRUPTED if isinstance(error, Interruption) else 1
    finally:
        sys.stderr.flush()
        os._exit(code)


@pytest.fixture
def forked_job(tmp_path) -> Callable[..., tuple[int, str]]:
    """Runs a module-level function in a process of its own: (function, *arguments) → (exit code, what it printed)."""

    def run(job: Callable[..., None], *arguments: Any, timeout: float = 60, **environment: str) -> tuple[int, str]:
        assert _server is not None
        output = tmp_path / "output.txt"
        output.unlink(missing_ok=True)
        _server.send((job, arguments, output, environment))
        child = _server.recv()
        try:
            assert _server.poll(timeout), f"{job.__name__} does not end:\n{output.read_text()}"
        except BaseException:
            os.killpg(child, signal.SIGKILL)
            _server.recv()
            raise
        return _server.recv(), output.read_text()

    return run


@pytest.fixture(scope="module")
def text(tiny_data):
    from yarnlab.corpus.passkey import PasskeyText

    return PasskeyText.load(tiny_data / "tokenizer")


@pytest.fixture
def source(tiny_data, text):
    """Makes the rows of a phase: (phase, order) → RowSource."""
    from yarnlab.corpus.tokens import TokenisedCorpus
    from yarnlab.training.rows import RowSource

    corpus = TokenisedCorpus.open(tiny_data / "train")
    return lambda chosen, order=(0, 0, 0): RowSource(corpus, text, chosen, order)


@pytest.fixture
def layout(tiny_data, tmp_path):
    """A results folder with tokenizer and corpus."""
    from yarnlab.stages.layout import Layout

    root = tmp_path / "results"
    shutil.copytree(tiny_data, root / "data")
    for part in ("tokenizer", "train"):
        (root / "data" / part / "manifest.json").write_text(json.dumps({"datasets": [], "outputs": {}}))
    return Layout(root)


@pytest.fixture
def job(forked_job):
    """Runs a function in a process of its own and wants that it ends with this code; returns what it said."""

    def run(function, *arguments, code: int = 0) -> str:
        ended, said = forked_job(function, *arguments)
        assert ended == code, said
        return said

    return run
