"""The tests compute on CPUs unless GPUs are asked for: the ordinary ones fork, which a process that uses CUDA cannot."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def plugin(config: pytest.Config):
    """tests/conftest.py as pytest has loaded it."""
    return config.pluginmanager.get_plugin(str(Path(__file__).with_name("conftest.py")))


@pytest.mark.parametrize(
    ("marks", "asked"),
    [
        ("not slow and not gpu and not cluster", False),
        ("", False),
        ("slow", False),
        ("gpu", True),
        ("gpu and not slow", True),
        ("slow or gpu", True),
    ],
)
def test_gpus_are_seen_by_those_who_ask(marks, asked, request):
    assert plugin(request.config).asks_for_gpus(marks) == asked


def test_this_run_hides_what_it_did_not_ask_for(request):
    """Before torch could look: what it found is kept for the process's life."""
    asked = plugin(request.config).asks_for_gpus(request.config.option.markexpr)
    assert os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] == "1"
    assert asked or os.environ["CUDA_VISIBLE_DEVICES"] == ""
    import torch

    assert asked or not torch.cuda.is_available()
