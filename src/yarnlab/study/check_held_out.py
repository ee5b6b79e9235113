"""Whether text that models are evaluated on is held out: no package or file of it may be training text too.

That is what names can tell before anything runs. What the text of different files has in common is counted when it is
there (corpus/overlap.py).
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from functools import cache
from itertools import product
from typing import TYPE_CHECKING

from packaging.utils import canonicalize_name

from yarnlab.study.data import Corpus, HubText, HubTokens, LocalText, PythonPackages
from yarnlab.study.fields import Problem
from yarnlab.study.schema import Study

if TYPE_CHECKING:
    from yarnlab.hub.local import Sources

_HOLD_OUT = "evaluate on held-out text: other files, or another `part` of the same `path`"


def held_out_problems(study: Study) -> Iterator[Problem]:
    """Every package or file of an evaluation's corpus that is in a training corpus, or in the tokenizer's."""
    for name, other in _pairs(study):
        key, shared = _shared(study, study.corpora[name], study.corpora[other])
        if shared:
            yield (
                ("corpora", name, key),
                f"{', '.join(shared)} is training text too (corpus {other}); evaluate on held-out text",
            )


def held_out_files(study: Study, sources: Mapping[str, Sources]) -> Iterator[Problem]:
    """As `held_out_problems`, of files that are there (corpus → its files), also of one under two names."""
    for name, other in _pairs(study):
        if name not in sources or other not in sources:
            continue
        theirs = {file["sha256"]: known for known, file in sources[other].items()}
        shared = [(mine, theirs[file["sha256"]]) for mine, file in sources[name].items() if file["sha256"] in theirs]
        same_files = sources[name].keys() == sources[other].keys() and len(shared) == len(sources[name])
        if shared and not (same_files and _apart(study.corpora[name], study.corpora[other])):
            mine, known = shared[0]
            more = f" and {len(shared) - 1} more" if len(shared) > 1 else ""
            renamed = f" as {known}" if known != mine else ""
            yield ("corpora", name, "path"), f"{mine}{more} is training text too (corpus {other}{renamed}); {_HOLD_OUT}"


def _pairs(study: Study) -> Iterator[tuple[str, str]]:
    """(corpus of an evaluation, corpus that models or the tokenizer are trained on), of those that are declared."""
    trained = {name for model in study.models.values() for phase in model.phases for name in phase.shares}
    if study.tokenizer is not None:
        trained.add(study.tokenizer.train_on)
    evaluated = {corpus for _, e in study.evaluations if e is not None for corpus in e.corpora.values()}
    yield from product(sorted(evaluated & set(study.corpora)), sorted(trained & set(study.corpora)))


def _apart(one: Corpus, other: Corpus) -> bool:
    """Whether two corpora of the same files hold other documents of them: stretches of one order that don't meet."""
    if not isinstance(one, LocalText) or not isinstance(other, LocalText) or one.part is None or other.part is None:
        return False
    return one.column == other.column and (one.part[1] <= other.part[0] or other.part[1] <= one.part[0])


def _shared(study: Study, one: Corpus, other: Corpus) -> tuple[str, list[str]]:
    """(key, packages or patterns of files below it) that another corpus names as well."""
    if isinstance(one, PythonPackages):
        theirs = {canonicalize_name(name) for name in getattr(other, "packages", ())}
        return "packages", [name for name in one.packages if canonicalize_name(name) in theirs]
    if isinstance(one, LocalText):  # files that two names or patterns mean are found where they lie (held_out_files)
        paths = set(other.paths) if isinstance(other, LocalText) else set()
        same = paths == set(one.paths) and _apart(one, other)
        return "path", [] if same else [path for path in one.paths if path in paths]
    if not isinstance(other, HubText | HubTokens) or _repository(study, one.asset) != _repository(study, other.asset):
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
