"""What a study file may hold: as a JSON schema for editors and validators, and as a page for readers.

The page is made here, since converters of JSON schemas do not say what the named entries of `models` and `corpora` are.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from yarnlab.study.schema import Study

BOUNDS = {"exclusiveMinimum": "> {}", "minimum": "≥ {}", "exclusiveMaximum": "< {}", "maximum": "≤ {}"}
EXTENDS = "Another study file of the folder, of which this one says what differs: mappings merge, `null` removes a key."
INTRODUCTION = """\
# The keys of a study file

A study is one YAML file in `config/studies/`. Every key that it may hold is listed here, section by section.
`envs/run yarnlab check FILE` says whether a file is sound.

This page and `workflow/schemas/study.schema.json` are written by `envs/run yarnlab schema --write`. An editor that
knows JSON schemas completes the keys of a file which begins with
`# yaml-language-server: $schema=../../workflow/schemas/study.schema.json`; in a file that `extends` another one, it
reports those keys as missing that the other one brings.
"""


def write_reference(root: Path) -> list[Path]:
    """Write both forms into the project; returns the files."""
    files = {root / "workflow/schemas/study.schema.json": schema_text(), root / "docs/study-reference.md": page_text()}
    for file, text in files.items():
        file.write_text(text, encoding="utf-8")
    return [*files]


class _Untitled(GenerateJsonSchema):
    def field_title_should_be_set(self, schema: Any) -> bool:
        return False  # "Seq Len" says no more than seq_len


def study_schema() -> dict[str, Any]:
    """The JSON schema of a study whose `extends` is resolved; `extends` itself is known too."""
    schema = Study.model_json_schema(schema_generator=_Untitled)
    properties = {"extends": {"type": "string", "description": EXTENDS}, **schema["properties"]}
    return {"$schema": GenerateJsonSchema.schema_dialect, **schema, "properties": properties}


def schema_text() -> str:
    return json.dumps(study_schema(), indent=2, ensure_ascii=False) + "\n"


def page_text() -> str:
    """The schema as Markdown: a table for each section, in the order in which a study names them."""
    schema = study_schema()
    sections = dict(_sections("Study", schema, schema["$defs"]))
    return "\n".join([INTRODUCTION, *(_table(name, section) for name, section in sections.items())])


def _sections(name: str, section: dict[str, Any], known: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """A section and all that it names, each as often as it is named."""
    yield name, section
    for other in _named(section["properties"]):
        yield from _sections(other, known[other], known)


def _named(part: Any) -> Iterator[str]:
    """The sections that a part of the schema refers to."""
    if isinstance(part, dict):
        if "$ref" in part:
            yield part["$ref"].rpartition("/")[2]
        part = list(part.values())
    if isinstance(part, list):
        for inner in part:
            yield from _named(inner)


def _table(name: str, section: dict[str, Any]) -> str:
    lines = [f"## {name}", "", *_words(section), "", "| key | type | default | description |", "|---|---|---|---|"]
    for key, value in section["properties"].items():
        default = "**required**" if key in section.get("required", ()) else ""
        if value.get("default") not in (None, [], {}) and "$ref" not in value:
            default = f"`{json.dumps(value['default'], ensure_ascii=False)}`"
        lines.append(f"| `{key}` | {_type(value)} | {default} | {' '.join(_words(value))} |")
    return "\n".join([*lines, ""])


def _words(part: dict[str, Any]) -> list[str]:
    return part.get("description", "").splitlines()


def _type(value: dict[str, Any]) -> str:
    """The values that a part of the schema admits, in words."""
    if "$ref" in value:
        (name,) = _named(value)
        return f"[{name}](#{name.lower()})"
    if choices := value.get("enum") or value.get("const"):
        return ", ".join(f"`{choice}`" for choice in (choices if isinstance(choices, list) else [choices]))
    if choices := value.get("anyOf") or value.get("oneOf"):
        return " or ".join(_type(choice) for choice in choices if choice != {"type": "null"})
    if value["type"] == "array":
        several = value.get("prefixItems", ())
        return f"[{', '.join(map(_type, several))}]" if several else f"list of {_type(value['items'])}"
    if value["type"] == "object":
        inner = [*value.get("patternProperties", {}).values()]
        return f"name → {_type(inner[0])}" if inner else "mapping"
    kind = {"string": "name" if "maxLength" in value else "text", "boolean": "true or false"}
    bounds = [text.format(value[bound]) for bound, text in BOUNDS.items() if bound in value]
    return f"{kind.get(value['type'], value['type'])} {', '.join(bounds)}".strip()
