"""A process that is gone must never be taken for one that lives."""

from __future__ import annotations

import os
import subprocess

import psutil

from yarnlab.processes import watch


def test_a_gone_process_is_noticed():
    """A zombie, and a number that is free; and one that was gone before anybody watched."""
    child = subprocess.Popen(["sleep", "100"])
    lives = watch(child.pid)
    assert lives()
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not lives() and not watch(child.pid)()
    child.wait()
    assert not lives() and not watch(child.pid)()


def test_a_number_in_use_again_is_another_process(monkeypatch):
    """The start time tells them apart."""
    births = iter([100.0, 100.0, 200.0])
    monkeypatch.setattr(psutil.Process, "_get_ident", lambda process: (process.pid, next(births)))
    lives = watch(os.getpid())
    assert lives() and not lives()
