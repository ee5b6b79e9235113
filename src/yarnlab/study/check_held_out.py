"""Whether text that models are evaluated on is held out: no package or file of it may be training text too.

That is what names can tell before anything runs. What the text of different files has in common is counted when it is
there (corpus/overlap.py).
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import cache

from packaging.utils import canonicalize_name

from yarnlab.study.data import Corpus, PythonPackages
from yarnlab.study.fields import Problem
from yarnlab.study.schema import Study


def held_out_problems(study: Study) -> Iterator[Problem]:
    """Every package or file of an evaluation's corpus that is in a training corpus, or in the tokenizer's."""
    trained = {phase.corpus for model in study.models.values() for phase in model.phases}
    if study.tokenizer is not None:
        trained.add(study.tokenizer.train_on)
    evaluated = {corpus for _, e in study.evaluations if e is not None for corpus in e.corpora.values()}
    for name in sorted(evaluated & set(study.corpora)):
        for other in sorted(trained & set(study.corpora)):
            key, shared = _shared(study, study.corpora[name], study.corpora[other])
            if shared:
                yield (
                    ("corpora", name, key),
                    f"{', '.join(shared)} is training text too (corpus {other}); evaluate on held-out text",
                )


def _shared(study: Study, one: Corpus, other: Corpus) -> tuple[str, list[str]]:
    """(key, packages or patterns of files below it) that another corpus names as well."""
    if isinstance(one, PythonPackages):
        theirs = {canonicalize_name(name) for name in getattr(other, "packages", ())}
        return "packages", [name for name in one.packages if canonicalize_name(name) in theirs]
    if isinstance(other, PythonPackages) or _repository(study, one.asset) != _repository(study, other.asset):
        return "files", []
    return "files", [pattern for pattern in one.files if any(overlap(pattern, file) for file in other.files)]


def _repository(study: Study, asset: str) -> str:
    """What an asset is a copy of, which several assets can share, at one revision or at several."""
    return study.assets[asset].source if asset in study.assets else asset


def overlap(one: str, other: str) -> bool:
    """Whether a file's name can match both shell patterns; fnmatch compares a pattern with names only."""
    first, second = (_parts(pattern, one + other) for pattern in (one, other))

    @cache
    def meet(i: int, j: int) -> bool:
        if i == len(first) or j == len(second):
            return all(part is None for part in (*first[i:], *second[j:]))
        a, b = first[i], second[j]
        if a is None or b is None:  # a star: it ends here, or it takes what the other pattern has next
            return meet(i + 1, j) or meet(i, j + 1)
        return bool(a & b) and meet(i + 1, j + 1)

    return meet(0, 0)


def _parts(pattern: str, more: str) -> list[frozenset[str] | None]:
    """The characters that each place of a shell pattern takes, of ASCII's and of `more`; None for a star."""
    known = string.printable + more

    def taken(part: str) -> frozenset[str] | None:
        if part == "*":
            return None
        return frozenset(c for c in known if fnmatchcase(c, part)) if part[0] in "?[" else frozenset(part)

    return [taken(part) for part in re.findall(r"\*|\[!?+\]?+[^\]]*\]|.", pattern, re.DOTALL)]
