"""What a result is valid by, beside its section of the study and what its inputs hold: one short key for each job.

A key names the version of the protocol, raised by hand when numbers change, and what the job takes from elsewhere: the
RoPE classes that it computes with, or the installed packages whose text it reads. It depends neither on the version of
Python nor on comments, layout, or a class that the job does not use. tests/protocols.lock sees to it that code which
decides numbers does not change without a decision about the version.

Tables, figures, claims and the report cost little: their key is a hash of the package that they come from.
"""

from __future__ import annotations

import hashlib
import io
import keyword
import re
import tokenize
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib import metadata
from itertools import accumulate
from pathlib import Path
from typing import Any

import yarnlab.corpus.version
import yarnlab.hub.version
import yarnlab.training.version
from yarnlab.rope import METHODS

SOURCE = Path(__file__).resolve().parent
VERSIONS = {
    "asset": yarnlab.hub.version.VERSION,
    "tokenizer": yarnlab.corpus.version.VERSION,
    "corpus": yarnlab.corpus.version.VERSION,
    "train": yarnlab.training.version.VERSION,
}
# Stage → where its sources lie; of a folder without what is another stage's.
ANALYSIS = {"analyse": "results", "report": "results/report", "crate": "results/crate.py"}
KINDS_OF_FILES = (".py", ".j2", ".css", ".js")  # sources and templates of the analysis
ANALYSIS_METHODS = ("dynamic-pi", "dynamic-ntk", "dynamic-yarn")  # claims compute with their formulas and their bases'


def key(stage: str, section: Mapping[str, Any]) -> str:
    """The key of one job: its stage and its section of the study (`study.section`; {} for the analysis)."""
    if stage in ANALYSIS:
        return _analysis(stage)
    parts = [protocol(stage)]
    if "rope" in section:
        parts.append(f"rope:{rope_digest(methods(stage, section))}")
    elif "corpus" in section:
        parts += [f"{package}=={_version(package)}" for package in section["corpus"].get("packages", ())]
    return " ".join(parts)


def protocol(stage: str) -> str:
    """NAME@VERSION of what a stage does; the version counts changes of its numbers."""
    if stage in VERSIONS:
        return f"{stage}@{VERSIONS[stage]}"
    from yarnlab.study.evaluations import KINDS

    return KINDS[stage].PROTOCOL


def methods(stage: str, section: Mapping[str, Any]) -> list[str]:
    """The RoPE methods that a training or an evaluation computes with: those that it sweeps, or the model's own."""
    from yarnlab.study.evaluations import KINDS

    swept = KINDS[stage].SWEEPS if stage in KINDS else ""
    found = section["evaluation"][swept] if swept else section["rope"]["method"]
    return [found] if isinstance(found, str) else list(found)


def rope_digest(methods: Iterable[str]) -> str:
    """12 hex digits for the methods' classes, their bases, and what these use of rope.py."""
    defined = _formulas()
    used: set[str] = set()
    todo = [METHODS[method].__name__ for method in methods]
    while todo:
        name = todo.pop()
        if name not in used:
            used.add(name)
            todo += defined.keys() & set(re.findall(r"\w+", defined[name]))
    return digest(defined[name] for name in sorted(used))


def definitions(source: str) -> dict[str, str]:
    """Name → normalised source of each class, function and constant of a module."""
    found: dict[str, str] = {}
    name = decorators = ""
    for statement in statements(source):
        if statement.startswith("@"):
            decorators += statement + "\n"
        elif statement.startswith(" "):
            found[name] += "\n" + statement
        else:
            match = re.match(r"(?:class |def |(?=\w+ [=:]))(\w+)", statement)
            name = match[1] if match and not keyword.iskeyword(match[1]) else ""
            found[name], decorators = decorators + statement, ""
    return {name: text for name, text in found.items() if name}


def statements(source: str) -> Iterator[str]:
    """The logical lines of a module, indented, one space between tokens; no comments, docstrings or blank lines.

    The same in every version of Python: since 3.12 an f-string is several tokens, and is taken from the source here.
    """
    lines = [0, *accumulate(len(line) + 1 for line in source.split("\n"))]  # where each begins
    depth, inside, begin, words = 0, 0, 0, []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        kind = tokenize.tok_name[token.type]
        if kind.endswith("STRING_START"):
            begin = begin if inside else lines[token.start[0] - 1] + token.start[1]
            inside += 1
        elif kind.endswith("STRING_END"):
            inside -= 1
            if not inside:
                words.append(source[begin : lines[token.end[0] - 1] + token.end[1]])
        elif kind in ("INDENT", "DEDENT"):
            depth += 1 if kind == "INDENT" else -1
        elif kind == "NEWLINE":
            if not all(word.endswith(("'", '"')) for word in words):  # else a docstring
                yield "    " * depth + " ".join(words)
            words = []
        elif not inside and kind not in ("COMMENT", "NL", "ENDMARKER"):
            words.append(token.string)


def digest(texts: Iterable[str]) -> str:
    """12 hex digits of a sha256."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:12]


@cache
def _formulas() -> dict[str, str]:
    return definitions((SOURCE / "rope.py").read_text(encoding="utf-8"))


@cache
def _analysis(stage: str) -> str:
    own = SOURCE / ANALYSIS[stage]
    others = [SOURCE / place for each, place in ANALYSIS.items() if each != stage and own in (SOURCE / place).parents]
    # Neither an editor's nor an operating system's files that lie there too.
    files = [own] if own.is_file() else sorted(f for kind in KINDS_OF_FILES for f in own.rglob(f"[!.]*{kind}"))
    files = [file for file in files if not any(file.is_relative_to(other) for other in others)]
    texts = {file: file.read_text(encoding="utf-8") for file in files if file.suffix != ".pyc"}
    codes = ("\n".join(statements(text)) if file.suffix == ".py" else text for file, text in texts.items())
    return digest([*(str(file.relative_to(SOURCE)) for file in texts), *codes, rope_digest(ANALYSIS_METHODS)])


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "missing"  # the stage says so
