"""The YAML of a study file: its content, and of every key the file and line where it was written.

A study may `extends:` another file of the same folder: mappings merge key by key, lists and scalars replace,
`null` removes a key. The line of a value is the one where it was written, in whichever file.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from yarnlab.study.fields import KeyPath

Lines = dict[KeyPath, str]

CORE = "tag:yaml.org,2002:"
PLAIN = {CORE + kind for kind in ("null", "bool", "int", "float", "str")}  # what JSON can say too


class StudyError(ValueError):
    """A mistake in a study file; the message is ready to be shown: one line per mistake."""


class Loader(yaml.CSafeLoader):
    """Safe YAML in which 2e-5 is a number and 2026-01-01 is text: YAML 1.1 reads the one as text, the other as a date.

    In C, as every start of Snakemake waits.
    """


Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in (CORE + "float", CORE + "timestamp")]
    for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}
Loader.add_implicit_resolver(
    CORE + "float",
    re.compile(r"^[-+]?(\d[\d_]*\.[\d_]*([eE][-+]?\d+)?|\d[\d_]*[eE][-+]?\d+|\.\d+([eE][-+]?\d+)?|\.inf|\.nan)$"),
    list("-+0123456789."),
)


def read_study(file: Path, extended_by: tuple[Path, ...] = ()) -> tuple[dict[str, Any], Lines]:
    """The content of a study file with all that it extends, and path of a key → `file:line`.

    Raises StudyError for a file that can't be read or is no YAML of plain values.
    """
    if file in extended_by:
        circle = " -> ".join(f.name for f in (*extended_by, file))
        raise StudyError(f"{file}: `extends` goes round in a circle: {circle}")
    lines: Lines = {}
    node = _compose(_text(file, extended_by), file)
    try:
        data = _construct(node, (), file, lines)
    except RecursionError:
        raise StudyError(f"{file}:1: study: nested without end: an alias (*) stands inside of what it names") from None
    if not isinstance(data, dict):
        raise StudyError(f"{file}:1: a study file is a mapping of keys, this is {type(data).__name__}")
    extends = data.pop("extends", None)
    if extends is None:
        return data, lines
    if not isinstance(extends, str):
        raise StudyError(f"{lines['extends',]}: extends: expected the name of a study file, found {extends!r}")
    base, base_lines = read_study(file.parent / extends, (*extended_by, file))
    return _merge(base, data), {**base_lines, **lines}


def _text(file: Path, extended_by: tuple[Path, ...]) -> str:
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        known = ", ".join(sorted(f.stem for f in file.parent.glob("*.yaml"))) or "none"
        why = f" (which {extended_by[-1].name} extends)" if extended_by else ""
        raise StudyError(f"{file}: there is no such study file{why}; studies in {file.parent}: {known}") from None
    except OSError as error:
        raise StudyError(f"{file}: can't be read: {error.strerror}") from None
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise StudyError(
            f"{file}:{line}: byte {content[error.start]:#x} is not UTF-8: save the file in that encoding"
        ) from None


def _compose(text: str, file: Path) -> yaml.Node | None:
    try:
        return yaml.compose(text, Loader=Loader)
    except yaml.MarkedYAMLError as error:
        line, problem = error.problem_mark.line if error.problem_mark else 0, error.problem
    except yaml.reader.ReaderError as error:  # its position is in bytes
        line, problem = text.encode().count(b"\n", 0, error.position), error.reason
    raise StudyError(f"{file}:{line + 1}: not valid YAML: {problem}")


def _construct(node: yaml.Node | None, path: KeyPath, file: Path, lines: Lines) -> Any:
    if node is None:
        return None
    value: Any
    if isinstance(node, yaml.MappingNode) and node.tag == CORE + "map":
        value = _mapping(node, path, file, lines)
    elif isinstance(node, yaml.SequenceNode) and node.tag == CORE + "seq":
        value = [_construct(item, (*path, i), file, lines) for i, item in enumerate(node.value)]
    elif isinstance(node, yaml.ScalarNode) and node.tag in PLAIN:
        try:
            value = Loader("").construct_object(node)
        except (ValueError, LookupError):
            raise _mistake(node, path, file, f"{node.value!r} is no {node.tag.removeprefix(CORE)}") from None
    else:
        tag = node.tag.replace(CORE, "!!")
        raise _mistake(node, path, file, f"the tag {tag} means nothing here; expected text, numbers, lists or mappings")
    lines[path] = f"{file}:{node.start_mark.line + 1}"
    return value


def _mapping(node: yaml.MappingNode, path: KeyPath, file: Path, lines: Lines) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key_node, value_node in node.value:
        if key_node.tag == CORE + "merge":
            result.update(_merged(value_node, path, file, lines))
    own: set[str] = set()
    for key_node, value_node in node.value:
        if key_node.tag == CORE + "merge":
            continue
        if not isinstance(key_node, yaml.ScalarNode):
            raise _mistake(key_node, path, file, "a key is one word, found a list or mapping")
        key, where = str(key_node.value), (*path, str(key_node.value))
        if key in own:
            raise _mistake(key_node, where, file, "the key is given twice")
        own.add(key)
        result[key] = _construct(value_node, where, file, lines)
        lines[where] = f"{file}:{key_node.start_mark.line + 1}"
    return result


def _merged(node: yaml.Node, path: KeyPath, file: Path, lines: Lines) -> dict[str, Any]:
    """What `<<` brings in: a mapping, or a list of mappings of which the first to have a key gives its value."""
    result: dict[str, Any] = {}
    for source in reversed(node.value if isinstance(node, yaml.SequenceNode) else [node]):
        if not isinstance(source, yaml.MappingNode):
            raise _mistake(source, (*path, "<<"), file, "expected a mapping or a list of mappings, as in `<<: *name`")
        result.update(_construct(source, path, file, lines))
    return result


def _mistake(node: yaml.Node, path: KeyPath, file: Path, message: str) -> StudyError:
    return StudyError(f"{file}:{node.start_mark.line + 1}: {dotted(path)}: {message}")


def dotted(path: KeyPath) -> str:
    """A key as messages name it; the whole study's is `study`."""
    return ".".join(map(str, path)) or "study"


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
