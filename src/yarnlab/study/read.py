"""The YAML of a study file: its content, and of every key the file and line where it was written.

A study may `extends:` another file of the same folder: mappings merge key by key, lists and scalars replace,
`null` removes a key. The line of a value is the one where it was written, in whichever file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from yarnlab.errors import UserError
from yarnlab.study.fields import KeyPath

Lines = dict[KeyPath, str]


class StudyError(UserError):
    """A mistake in a study file; the message is ready to be shown: one line per mistake."""


def read_study(file: Path, extended_by: tuple[Path, ...] = ()) -> tuple[dict[str, Any], Lines]:
    """The content of a study file with all that it extends, and path of a key → `file:line`.

    Raises StudyError for a file that can't be read or is no YAML of plain values.
    """
    if file in extended_by:
        circle = " -> ".join(f.name for f in (*extended_by, file))
        raise StudyError(f"{file}: `extends` goes round in a circle: {circle}")
    data, lines = parse(_text(file, extended_by), file)
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


def parse(text: str, file: Path) -> tuple[Any, Lines]:
    """The plain values of one YAML 1.2 document, and path of a key → `file:line`; StudyError names `file`."""
    document = _Document(file)
    try:
        return document.read(text), document.lines
    except MarkedYAMLError as error:
        line, problem = error.problem_mark.line if error.problem_mark else 0, error.problem
    except ReaderError as error:
        line, problem = text.count("\n", 0, error.position), error.reason
    except RecursionError:
        raise StudyError(f"{file}:1: study: nested without end: an alias (*) stands inside of what it names") from None
    raise StudyError(f"{file}:{line + 1}: not valid YAML: {problem}")


class _Document:
    """One document on its way from ruamel's nodes, which know their lines, to plain values."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.lines: Lines = {}
        self.yaml = YAML(typ="safe", pure=True)

    def read(self, text: str) -> Any:
        node = self.yaml.compose(text)
        return None if node is None else self.value(node, ())

    def value(self, node: Node, path: KeyPath) -> Any:
        """What a node stands for, as dicts, lists and scalars."""
        value: Any
        tag = str(node.tag).replace("tag:yaml.org,2002:", "!!")
        kind = tag.removeprefix("!!")
        if isinstance(node, MappingNode) and kind == "map":
            value = self.mapping(node, path)
        elif isinstance(node, SequenceNode) and kind == "seq":
            value = [self.value(item, (*path, i)) for i, item in enumerate(node.value)]
        elif isinstance(node, ScalarNode) and kind in ("str", "timestamp"):  # a date is text: JSON has none
            value = node.value
        elif isinstance(node, ScalarNode) and kind in ("null", "bool", "int", "float"):
            try:
                value = self.yaml.constructor.construct_object(node)
            except (ValueError, LookupError):
                raise self.mistake(node, path, f"{node.value!r} is no {kind}") from None
        else:
            expected = "expected text, numbers, lists or mappings"
            raise self.mistake(node, path, f"the tag {tag} means nothing here; {expected}")
        self.lines[path] = self.place(node)
        return value

    def mapping(self, node: MappingNode, path: KeyPath) -> dict[str, Any]:
        self.yaml.constructor.flatten_mapping(node)  # puts what `<<` brings in before the mapping's own keys
        merged = len(node.merge or ())
        result: dict[str, Any] = {}
        own: set[str] = set()
        for i, (key_node, value_node) in enumerate(node.value):
            if not isinstance(key_node, ScalarNode):
                raise self.mistake(key_node, path, "a key is one word, found a list or mapping")
            key, where = str(key_node.value), (*path, str(key_node.value))
            if key in own:
                raise self.mistake(key_node, where, "the key is given twice")
            if i >= merged:
                own.add(key)
            result[key] = self.value(value_node, where)
            self.lines[where] = self.place(key_node)
        return result

    def place(self, node: Node) -> str:
        return f"{self.file}:{node.start_mark.line + 1}"

    def mistake(self, node: Node, path: KeyPath, message: str) -> StudyError:
        return StudyError(f"{self.place(node)}: {dotted(path)}: {message}")


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
