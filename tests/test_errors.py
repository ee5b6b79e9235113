"""How a command ends: a user's mistake with one message, an interruption with its own code, a bug with a traceback."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from yarnlab import cli
from yarnlab.errors import EXIT_INTERRUPTED, Interruption, UserError

SOURCE = Path(__file__).resolve().parents[1] / "src" / "yarnlab"
# Exceptions of our own that a caller handles, or that say that the code itself is wrong.
INTERNAL = {"LaunchError", "NotInForce", "NotMeasured"}


def ended(monkeypatch, error: BaseException) -> int | str | None:
    def app() -> None:
        raise error

    monkeypatch.setattr(cli, "app", app)
    with pytest.raises(SystemExit) as end:
        cli.main()
    return end.value.code


@pytest.mark.parametrize("error", [UserError("what to do"), OSError(28, "No space left on device", "x.log")])
def test_a_users_mistake_is_one_message(monkeypatch, capsys, error):
    assert ended(monkeypatch, error) == 1
    assert capsys.readouterr().err == f"error: {error}\n"


def test_an_interruption_has_a_code_of_its_own(monkeypatch, capsys):
    assert ended(monkeypatch, Interruption("stopped at step 3")) == EXIT_INTERRUPTED
    assert capsys.readouterr().err == "stopped at step 3\n"


def test_a_bug_keeps_its_traceback(monkeypatch):
    with pytest.raises(ZeroDivisionError):
        ended(monkeypatch, ZeroDivisionError())


def test_every_other_exception_of_ours_is_a_users_mistake():
    """A class that derives from Python's own would end in a traceback where its message is meant for the user."""
    classes = (
        node
        for file in SOURCE.rglob("*.py")
        if file.name != "errors.py" or file.parent != SOURCE
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    )
    plain = {"BaseException", "Exception", "LookupError", "RuntimeError", "TypeError", "ValueError"}
    found = {node.name for node in classes if plain & {base.id for base in node.bases if isinstance(base, ast.Name)}}
    assert found == INTERNAL
