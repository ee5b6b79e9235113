"""YAML → Study, with the file and line of every mistake.

A study may `extends:` another file of the same folder: mappings merge key by key, lists and scalars replace,
`null` removes a key. The line reported for a value is the one where it was written, in whichever file.
"""

from __future__ import annotations

import difflib
import json
import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from yarnlab.study.check import KeyPath, find_problems
from yarnlab.study.schema import Study

Lines = dict[KeyPath, str]


class StudyError(ValueError):
    """A mistake in a study file; the message is ready to be shown: one line per mistake."""


class _Loader(yaml.CSafeLoader):
    """Safe YAML in which 2e-5 is a number: YAML 1.1 reads it as a string. In C, as every start of Snakemake waits."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:float"]
    for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*\.[\d_]*([eE][-+]?\d+)?|\d[\d_]*[eE][-+]?\d+|\.\d+([eE][-+]?\d+)?|\.inf|\.nan)$"),
    list("-+0123456789."),
)


def load_study(file: Path) -> Study:
    """The study in `file`.

    Raises StudyError with one `file:line: key: what was expected` per mistake, before anything runs.
    """
    data, lines = _read(file, ())
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


def _read(file: Path, seen: tuple[Path, ...]) -> tuple[dict[str, Any], Lines]:
    if file in seen:
        raise StudyError(f"{file}: `extends` goes round in a circle: {' -> '.join(f.name for f in (*seen, file))}")
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        known = ", ".join(sorted(f.stem for f in file.parent.glob("*.yaml"))) or "none"
        raise StudyError(f"{file}: there is no such study file; studies in {file.parent}: {known}") from None
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise StudyError(f"{file}:{line}: not valid YAML: {error.problem}") from None
    lines: Lines = {}
    data = _construct(node, (), file, lines)
    if not isinstance(data, dict):
        raise StudyError(f"{file}:1: a study file is a mapping of keys, this is {type(data).__name__}")
    extends = data.pop("extends", None)
    if extends is None:
        return data, lines
    base, base_lines = _read(file.parent / str(extends), (*seen, file))
    return _merge(base, data), {**base_lines, **lines}


def _construct(node: yaml.Node | None, path: KeyPath, file: Path, lines: Lines) -> Any:
    if node is None:
        return None
    lines[path] = f"{file}:{node.start_mark.line + 1}"
    if isinstance(node, yaml.MappingNode):
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                result.update(_construct(value_node, path, file, lines))
        own: set[str] = set()
        for key_node, value_node in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key, where = str(key_node.value), (*path, str(key_node.value))
            line = f"{file}:{key_node.start_mark.line + 1}"
            if key in own:
                raise StudyError(f"{line}: {'.'.join(map(str, where))}: the key is given twice")
            own.add(key)
            result[key] = _construct(value_node, where, file, lines)
            lines[where] = line
        return result
    if isinstance(node, yaml.SequenceNode):
        return [_construct(item, (*path, i), file, lines) for i, item in enumerate(node.value)]
    return _Loader("").construct_object(node)


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = _merge(merged[key], value)
        else:
            merged[key] = value
    return merged


def _describe(item: Any, data: Any) -> tuple[KeyPath, str]:
    """One pydantic error as (path, message)."""
    path = tuple(part for part in item["loc"])
    found = data
    for part in path:
        try:
            found = found[part]
        except (KeyError, IndexError, TypeError):
            found = None
            break
    kind, message = item["type"], item["msg"].removeprefix("Value error, ")
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
        messages.append(f"{where}: {'.'.join(map(str, path)) or 'study'}: {message}")
    return "\n".join(messages)
