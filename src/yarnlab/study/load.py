"""A study file → Study, with the file and line of every mistake."""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from yarnlab.study.architectures import complete
from yarnlab.study.check import find_problems
from yarnlab.study.fields import KeyPath
from yarnlab.study.read import Lines, StudyError, dotted, read_study
from yarnlab.study.schema import Study


def load_study(file: Path) -> Study:
    """The study in `file`.

    Raises StudyError with one `file:line: key: what was expected` per mistake, before anything runs.
    """
    data, lines = read_study(file)
    complete(data, lines, file)
    try:
        # Through JSON in strict mode: no "42" for 42, yet lists become tuples.
        study = Study.model_validate_json(json.dumps(data), strict=True)
    except ValidationError as error:
        found = error.errors()
        inner = {item["loc"][:i] for item in found for i in range(len(item["loc"]))}
        # A list whose items are wrong is also reported as too short: that follows and helps nobody.
        problems = [
            _describe(item, data) for item in found if not (item["type"] == "too_short" and item["loc"] in inner)
        ]
        raise StudyError(_format(problems, lines, file)) from None
    problems = find_problems(study)
    if study.study != file.stem:
        problems.append((("study",), f"is {study.study!r}, but the file is named {file.name}"))
    if problems:
        raise StudyError(_format(problems, lines, file))
    return study


def _describe(item: Any, data: Any) -> tuple[KeyPath, str]:
    """One pydantic error as (path, message)."""
    kind, message = item["type"], item["msg"].removeprefix("Value error, ")
    path: KeyPath = ()
    found = data
    for i, part in enumerate(item["loc"]):
        try:
            found = found[part]
        except (KeyError, IndexError, TypeError):
            if part == "[key]":
                found = path[-1]
            if kind != "missing" or i + 1 < len(item["loc"]):
                continue  # no key, but what pydantic calls one of several kinds that are possible here
        path = (*path, part)
    if kind == "extra_forbidden":
        return path, "unknown key" + _suggest(path)
    if kind == "missing":
        return path, "is missing"
    if kind == "value_error":
        return path, message
    return path, f"{message[0].lower()}{message[1:]}, found {found!r}"


def _suggest(path: KeyPath) -> str:
    """The fields of the section that holds an unknown key, the nearest first."""
    section: Any = Study
    for part in path[:-1]:
        if isinstance(part, str) and isinstance(section, type) and part in getattr(section, "model_fields", {}):
            section = getattr(section, "model_fields")[part].annotation  # noqa: B009 (typed as `type`)
        else:  # an entry of a mapping or list, or an alias such as `from`
            section = getattr(section, "__args__", (section,))[-1]
        section = _model_in(section)
    fields = [f.alias or name for name, f in getattr(section, "model_fields", {}).items()]
    near = difflib.get_close_matches(str(path[-1]), fields, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"{hint} (keys here: {', '.join(fields)})" if fields else hint


def _model_in(annotation: Any) -> Any:
    """The pydantic model inside `X | None`; other annotations unchanged."""
    choices = [a for a in getattr(annotation, "__args__", ()) if hasattr(a, "model_fields")]
    is_mapping = getattr(annotation, "__origin__", None) in (dict, tuple)
    return choices[0] if choices and not is_mapping else annotation


def _format(problems: list[tuple[KeyPath, str]], lines: Lines, file: Path) -> str:
    messages = []
    for path, message in problems:
        known = path
        while known and known not in lines:
            known = known[:-1]
        where = lines.get(known, f"{file}:1")
        messages.append(f"{where}: {dotted(path)}: {message}")
    return "\n".join(messages)
