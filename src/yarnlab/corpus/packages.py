"""Documents from installed Python packages: text that is fixed by the lock file, so nothing is downloaded.

Only pure-Python wheels qualify: their files are the same on every machine with the same lock. Each file is
checked against the sha256 in the wheel's own RECORD, so a locally edited package cannot change a corpus.
"""

from __future__ import annotations

import ast
import base64
import hashlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata

from yarnlab.errors import UserError


class CorpusError(UserError):
    """A corpus that cannot be built as declared; the message says what is wrong and what to do."""


@dataclass(frozen=True)
class Document:
    name: str
    text: str


def read_packages(packages: tuple[str, ...]) -> list[Document]:
    """Every .py file of the packages as one document, ordered by package and path.

    Raises CorpusError if a package is missing, is not pure Python, or differs from its wheel.
    """
    return [document for package in packages for document in _read_package(package)]


def parts_of(documents: list[Document], parts: tuple[str, ...]) -> list[Document]:
    """One part of every file as a document, `source` or `docstrings`: the parts take turns over the files.

    No file gives two, which would be text of each other. One without docstrings, or that this Python cannot parse,
    gives none.
    """
    found = (_part(document, parts[i % len(parts)]) for i, document in enumerate(documents))
    return [document for document in found if document is not None]


def _part(document: Document, part: str) -> Document | None:
    if part == "source":
        return document
    text = "\n\n".join(_docstrings(document.text))
    return Document(f"{document.name}#{part}", text) if text else None


def _docstrings(source: str) -> Iterator[str]:
    """The docstrings of a module, its classes and functions, in their order, with the indentation taken off."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)  # of others' string escapes
            todo: list[ast.AST] = [ast.parse(source)]
    except (SyntaxError, ValueError):
        return
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if text := ast.get_docstring(node):
                yield text
            todo += reversed(node.body)


def versions(packages: tuple[str, ...]) -> dict[str, str]:
    return {package: metadata.version(package) for package in packages}


def _read_package(package: str) -> list[Document]:
    try:
        distribution = metadata.distribution(package)
    except metadata.PackageNotFoundError:
        raise CorpusError(
            f"package {package!r} is not installed; a corpus may name packages of envs/requirements.in only"
        ) from None
    if "Root-Is-Purelib: true" not in (distribution.read_text("WHEEL") or ""):
        raise CorpusError(
            f"package {package!r} has compiled parts, so its files differ between builds and machines; "
            "choose pure-Python packages"
        )
    documents = []
    for file in sorted(distribution.files or [], key=str):
        if file.suffix != ".py" or file.hash is None:
            continue
        content = file.read_binary()
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        if digest != file.hash.value:
            raise CorpusError(
                f"{package}: {file} differs from the installed wheel's RECORD; reinstall it "
                "(remove .venv, then run envs/run again)"
            )
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError:
            continue  # test fixtures in other encodings; deterministic, since the bytes are
        if text.strip():
            documents.append(Document(f"{package}/{file}", text))
    if not documents:
        raise CorpusError(f"package {package!r} has no Python files")
    return documents
