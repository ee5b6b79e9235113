"""The claims and their criteria, from `config/claims.yaml`: read, checked, hashed, and put in words.

A criterion is written before the result. Whatever decides a claim stands in that file, so its hash changes with every
criterion, and a criterion's prose is made of what is judged. A study about one model has a file of its own
(`registry.criteria_file`).
"""

from __future__ import annotations

import hashlib
import inspect
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from string import Formatter
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from yarnlab.results.claims import extension, identities  # noqa: F401 (register their functions)
from yarnlab.results.claims.models import WORDS, Scope, find_models, words
from yarnlab.results.claims.notation import Length, listed, symbols
from yarnlab.results.claims.parts import Part
from yarnlab.results.claims.quantities import Comparison
from yarnlab.results.claims.special import SPECIAL
from yarnlab.results.estimates import NotMeasured
from yarnlab.results.registry import PAPER, criteria_file
from yarnlab.results.results import Results
from yarnlab.results.style import METHOD_LABELS
from yarnlab.rope import METHODS
from yarnlab.study.evaluations import KINDS
from yarnlab.study.fields import ConfigModel, near
from yarnlab.study.read import StudyError, read_study

# What the paper's own data say of a claim → in words, and the mark beside the verdict where they do not support it.
PAPER_DATA = {
    "supported": ("supported", ""),
    "partly": ("supported in part", "supported only in part by the paper’s own data"),
    "contradicted in part": ("contradicted in part", "contradicted in part by the paper’s own data"),
    "contradicted": ("contradicted", "contradicted by the paper’s own data"),
    "untested": ("not tested in the paper", ""),
}


# What is judged, and the words by which its counts are shown.
GROUPS = {
    "paper": "claims of the paper",
    "identity": "identities and arithmetic",
    "acceptance": "this study's own lines",
    "extension": "statements about the extended model",
}


class Form(ConfigModel):
    """How a claim is judged: by parts that are quantities, or by a function of `special.py`.

    group: a claim of the paper; an identity, which holds by the formulas or the settings whatever is measured; or this
    study's own line of acceptance or control. They are counted apart.
    needs: kinds of results. models: those it is about (models.py), in the order in which they are looked for; tuned
    alike, at the ablation's scale or at `alike_at`, for as many steps unless `any_steps`. rows: models that must have
    been trained on rows of at most so many tokens. in_turn: the key whose values are gone through one by one, each
    with all parts that have it. judged_on: the base, where this form is about another one. note: what is added.
    """

    group: Literal["paper", "identity", "acceptance", "extension"] = "paper"
    needs: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    alike_at: float | None = None
    any_steps: bool = False
    rows: dict[str, Length] = Field({})
    in_turn: Literal["of", "at", "scales"] | None = None
    parts: tuple[Comparison, ...] = ()
    judge: str | None = None
    parameters: dict[str, Any] = Field({}, alias="with")
    prose: str = ""
    judged_on: Literal["ablation", "extension", "portability", "every"] | None = None
    note: str = ""

    @model_validator(mode="after")
    def _complete(self) -> Form:
        results = {"training", *KINDS} | {f"{kind}.{table}" for kind, found in KINDS.items() for table in found.FURTHER}
        for need in self.needs:
            if need not in results:
                raise ValueError(f"needs: there is no kind of results {need!r}{near(need, results)}")
        if bool(self.parts) == (self.judge is not None):
            raise ValueError("expected either `parts` or `judge`")
        methods = [name for name in self.models if name.removesuffix("?") not in WORDS]
        if methods and methods[0] != "yarn":
            raise ValueError(f"models: {methods[0]!r} is compared with yarn, which must stand before it")
        if absent := self.rows.keys() - set(self.models):
            raise ValueError(f"rows: {absent.pop()!r} is none of `models`")
        if self.judge is not None:
            self._check_special(self.judge)
        for part in self.parts:
            self._check_names(part)
        return self

    def _check_special(self, judge: str) -> None:
        if judge not in SPECIAL:
            raise ValueError(f"judge: special.py has no function {judge!r}{near(judge, SPECIAL)}")
        try:
            inspect.signature(SPECIAL[judge]).bind(None, **self.parameters)
        except TypeError as error:
            raise ValueError(f"with: {judge}: {error}") from None
        said = {re.split(r"[.\[]", field)[0] for _, field, _, _ in Formatter().parse(self.prose) if field}
        if said != set(self.parameters):
            raise ValueError(f"prose: must say {', '.join(self.parameters) or 'no parameter'}; it says {sorted(said)}")

    def _check_names(self, part: Comparison) -> None:
        models = {name.removesuffix("?") for name in self.models}
        known = METHODS if part.measured.on_base else models
        for name in part.names:
            if name not in known and "/" not in name:
                raise ValueError(f"{part.quantity}: {name!r} is none of this claim's models{near(name, known)}")
        if part.measured.on_base and "base" not in models:
            raise ValueError(f"{part.quantity}: `models` must name the base")
        needed = {"s": {"yarn", "first", "extended"}, "s'": {"second"}}
        for symbol in symbols(part.lengths):
            if not (needed[symbol] & models or part.scales):
                raise ValueError(f"{part.quantity}: {symbol} needs {' or '.join(sorted(needed[symbol]))} in `models`")

    @property
    def criterion(self) -> str:
        """The criterion in words."""
        if self.judge is not None:
            text = self.prose.format_map({name: _said(value) for name, value in self.parameters.items()})
        else:
            compared = "; ".join(part.words() for part in self.parts)
            decided = dict.fromkeys(sentence for part in self.parts for sentence in part.measured.decided)
            text = f"{self._lead()}{compared}. {' '.join(decided)}"
        text = re.sub(r"(?<=\d)%", " %", " ".join(f"{text} {self.note}".split()))
        return text[0].upper() + text[1:]

    def _lead(self) -> str:
        lead = []
        if self.alike_at is not None:
            lead.append(f"fine-tuned alike at s = {self.alike_at:g}")
        elif {"yarn"} < {*self.models} - {"base"}:
            lead.append("fine-tuned alike")
        lead += [f"{words(name)} trained on rows of at most {length} tokens" for name, length in self.rows.items()]
        return f"{', '.join(lead)}, " if lead else ""

    def compute(self, results: Results) -> Iterator[Part]:
        """Every part; NotMeasured says what the study lacks."""
        models = find_models(results, self.models, scale=self.alike_at, any_steps=self.any_steps)
        kinds = {need.partition(".")[0] for need in self.needs}
        scope = Scope(results, models, several=len(kinds) > 1)
        for name, rows in self.rows.items():
            model, longest = scope.model(name), scope.window.tokens(rows)
            if model.trained_length is None or model.trained_length > longest:
                raise NotMeasured(f"{model.arm} was not trained on rows of at most {longest:,} tokens")
        if self.judge is not None:
            yield from SPECIAL[self.judge](scope, **self.parameters)
            return
        for part in self._in_turn(scope):
            yield from part.parts(scope)

    def _in_turn(self, scope: Scope) -> Iterator[Comparison]:
        if self.in_turn is None:
            yield from self.parts
            return
        key = self.in_turn
        for value in dict.fromkeys(value for part in self.parts for value in getattr(part, key)):
            if key == "of" and scope.lacks(value):
                continue
            for part in self.parts:
                if value in getattr(part, key):
                    yield part.model_copy(update={key: (value,)})


class Claim(Form):
    """A claim of the paper, an identity, or a line of acceptance of this study's own, in the scale-free form.

    base: which of the study's bases it is about (bases.py). paper_data: what the paper's own data say of it;
    paper_note: the same in more words. full_scale: the form for the paper's own models, where it differs.
    only_with: `control_of`: the claim is listed in studies alone that have a model with this key.
    """

    id: str = Field(pattern=r"^[a-z0-9-]+$")
    title: str
    source: str
    paper_data: Literal["supported", "partly", "contradicted in part", "contradicted", "untested"] | None = None
    paper_note: str = ""
    base: Literal["ablation", "extension", "portability", "every"] = "ablation"
    full_scale: Form | None = None
    only_with: Literal["control_of"] | None = None

    def concerns(self, results: Results) -> bool:
        """Is the claim listed in this study at all?"""
        return self.only_with is None or bool(results.requantised())

    def in_form(self, form: str) -> Claim:
        """The claim as it is judged on a study of this form: scale-free or full-scale."""
        if form != "full-scale" or self.full_scale is None:
            return self
        return self.model_copy(update={key: getattr(self.full_scale, key) for key in Form.model_fields})

    @property
    def judged_base(self) -> str:
        """The base that it is judged on in this form."""
        return self.judged_on or self.base

    @property
    def reference(self) -> str:
        """What the paper's own data say of it, in words."""
        return self.paper_note or (PAPER_DATA[self.paper_data][0] if self.paper_data else "")

    @property
    def mark(self) -> str:
        """What stands beside the verdict where the paper's own data do not simply support the claim."""
        return PAPER_DATA[self.paper_data][1] if self.paper_data else ""


def _several(place: Any) -> Any:
    return [place] if isinstance(place, str) else place


class _File(ConfigModel):
    version: int
    headline: tuple[Annotated[tuple[str, ...], BeforeValidator(_several), Field(min_length=1)], ...]
    claims: tuple[Claim, ...]

    @model_validator(mode="after")
    def _ids_differ(self) -> _File:
        ids = [claim.id for claim in self.claims]
        twice = next((name for i, name in enumerate(ids) if name in ids[:i]), None)
        if twice is not None:
            raise ValueError(f"two claims are called {twice!r}")
        shown = [name for place in self.headline for name in place]
        unknown = next((name for name in shown if name not in ids), None)
        if unknown is not None:
            raise ValueError(f"headline: there is no claim {unknown!r}{near(unknown, ids)}")
        twice = next((name for i, name in enumerate(shown) if name in shown[:i]), None)
        if twice is not None:
            raise ValueError(f"headline: {twice!r} stands in it twice")
        return self


@dataclass(frozen=True)
class Criteria:
    """All claims, their version, and the hash of everything that the file says, comments excepted.

    headline: the places of what a reader sees first, in order; a study fills the first few that it can. Each has one
    id, or several, of which the first that the study can judge is shown.
    """

    version: str
    sha256: str
    headline: tuple[tuple[str, ...], ...]
    claims: tuple[Claim, ...]

    def claim(self, name: str) -> Claim:
        """The claim of this id."""
        return next(claim for claim in self.claims if claim.id == name)


@cache
def load_criteria(file: Path | None = None) -> Criteria:
    """Read and check `config/claims.yaml`, or `file`. Raises StudyError with a line for each mistake."""
    file = file or criteria_file(PAPER[0])
    content, lines = read_study(file)
    try:
        found = _File.model_validate(content)
    except ValidationError as error:
        raise StudyError("\n".join(_mistake(item, content, lines, file) for item in error.errors())) from None
    canonical = json.dumps(content, sort_keys=True, ensure_ascii=False)
    return Criteria(str(found.version), hashlib.sha256(canonical.encode()).hexdigest(), found.headline, found.claims)


def _mistake(item: Any, content: Any, lines: dict[tuple[str | int, ...], str], file: Path) -> str:
    """One error of pydantic as `file:line: claim id: key: message`."""
    path: tuple[str | int, ...] = ()
    found, claim = content, ""
    for key in item["loc"]:
        try:
            found = found[key]
        except (KeyError, IndexError, TypeError):
            continue  # the name of a quantity, or a key that is missing
        path = (*path, key)
        if len(path) == 2 and isinstance(found, dict):
            claim = f"claim {found.get('id', key)}: "
    where = next((lines[path[:n]] for n in range(len(path), 0, -1) if path[:n] in lines), str(file))
    if item["loc"][:1] == ("headline",):
        return f"{where}: headline: must be ids of claims, in quotes, and in place of one a list of at least one"
    key = ".".join(str(key) for key in item["loc"][2:])
    messages = {"extra_forbidden": "unknown key", "missing": "is missing"}
    message = messages.get(item["type"], item["msg"].removeprefix("Value error, "))
    return f"{where}: {claim}{key + ': ' if key else ''}{message}"


class _Listed(list[Any]):
    """A list that prose shows as 'a, b and c'."""

    def __format__(self, spec: str) -> str:
        return listed(self)


def _said(value: Any) -> Any:
    """A parameter as prose shows it: models and methods in words."""
    if isinstance(value, dict):
        return {key: _said(item) for key, item in value.items()}
    if isinstance(value, list):
        return _Listed(_said(item) for item in value)
    named = isinstance(value, str) and (value in METHOD_LABELS or value in WORDS or re.search(r"\w{3,}/", value))
    return words(value) if named else value
