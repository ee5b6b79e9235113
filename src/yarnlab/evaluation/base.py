"""What a kind of evaluation is: the settings, cost, columns and protocol that it declares, what it is given (`Task`)
and what it gives back (`Outcome`).

One module of this folder holds one kind, a subclass of `Evaluation` named in its `kind` like the module. Nothing else
lists kinds: study/evaluations.py finds them by presence, and the study's schema, the plan, the workflow's rules, the
cluster profile and the readers of results ask there. The Snakefile imports all of this folder at every start, so its
modules have torch, NumPy and pandas from `lazy`, and import transformers inside functions. Annotations are no texts
here: pydantic would evaluate them anew for each kind.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

from pydantic import AfterValidator, Field

from yarnlab.evaluation.partial_results import PartialResults
from yarnlab.lazy import np, pd
from yarnlab.rope import METHODS, Rope
from yarnlab.study.fields import ConfigModel, KeyPath, Name, Positive, Problem

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from yarnlab.corpus.tokens import TokenisedCorpus
    from yarnlab.progress import Progress
    from yarnlab.study.schema import Architecture, Study

Chosen = TypeVar("Chosen", str, tuple[str, ...])
Part = TypeVar("Part")
Rows = list[dict[str, Any]]


class Evaluation(ConfigModel):
    """What every kind declares.

    kind: the name of its module, of its section in a study and of its folder of results.
    order: its place among the kinds, wherever they are listed; kinds of one place come by name.
    PROTOCOL: name@version of what is measured; another version is another number.
    COLUMNS: of its table, beside model, arm and seed, without those that nothing reads; FURTHER: of further tables.
    SWEEPS: the field that names the RoPE methods which take the place of the model's own; '' where it runs as it is.
    STATIC_ONLY: what follows from a rope that rescales with the input's length, where models with one are refused.

    TypeError for a kind that lacks one of these, `cost` or `evaluate`; the rest has defaults.
    """

    kind: ClassVar[str]
    order: ClassVar[int] = 100
    PROTOCOL: ClassVar[str]
    COLUMNS: ClassVar[str]
    FURTHER: ClassVar[dict[str, str]] = {}
    SWEEPS: ClassVar[str] = ""
    STATIC_ONLY: ClassVar[str] = ""

    corpus: Name | dict[Name, Name]
    """The corpus that is read, or one for each tokenizer (an asset) of the models."""
    models: tuple[Name, ...] = Field(min_length=1)
    """The models that are evaluated."""
    precision: Literal["auto", "bf16", "fp32"]
    """How the forward pass computes; `auto` is the faster of bf16 and fp32, as in training."""
    threads: Positive
    """CPU threads of each of a job's processes."""
    processes: Positive = 1
    """Processes that share a job's documents, lengths or variants on one machine's CPUs; on a GPU one computes all.
    Each takes memory of its own but for the weights. Two of one thread are faster than one of two."""

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        lacking = [name for name in ("kind", "PROTOCOL", "COLUMNS") if not hasattr(cls, name)]
        lacking += [name for name in ("cost", "evaluate") if getattr(cls, name) is getattr(Evaluation, name)]
        if lacking:
            raise TypeError(f"the evaluation kind {cls.__name__} of {cls.__module__} lacks {', '.join(lacking)}")

    @property
    def corpora(self) -> dict[str | None, str]:
        """Tokenizer → corpus; None stands for every tokenizer."""
        return {None: self.corpus} if isinstance(self.corpus, str) else dict(self.corpus.items())

    @property
    def longest(self) -> tuple[KeyPath, int]:
        """(key, tokens): the key that decides how many tokens of a document are needed at least."""
        return ("corpus",), 2

    @property
    def reads_corpus(self) -> bool:
        """Whether its text comes from `corpus`; else from the protocol itself or from datasets of its own."""
        return True

    @property
    def datasets(self) -> dict[str, str]:
        """What it reads beside the corpus: its own name for a dataset → the study's asset."""
        return {}

    def of_arm(self, arm: str) -> "Evaluation":
        """These settings without those that are for other models: what the model's section of the study holds."""
        return self

    def check(self, study: "Study", arm: str) -> Iterator[Problem]:
        """What stands in the way of one of its models: (key within this section, what is wrong)."""
        return iter(())

    def cost(self, study: "Study", arm: str) -> "Passes":
        """What `evaluate` will compute for one model of an arm."""
        raise NotImplementedError

    def evaluate(self, task: "Task") -> "Outcome":
        """Measure one model.

        Raises EvaluationError where no meaningful number can be given.
        """
        raise NotImplementedError

    def documents_read(self, study: "Study", arm: str) -> int:
        """How many documents are read for an arm: as many as `documents` asks for, else all of the corpus."""
        asked: int | None = getattr(self, "documents", None)
        return asked or study.corpora[study.corpus_of(self.kind, arm)].documents or 1


def methods_that(fails: str, holds: Callable[[type[Rope]], bool]) -> AfterValidator:
    """A check of a method's name, or of several: known, and of a class for which `holds` is true."""

    def check(chosen: Chosen) -> Chosen:
        for method in (chosen,) if isinstance(chosen, str) else chosen:
            if method not in METHODS or not holds(METHODS[method]):
                known = ", ".join(name for name, rope in METHODS.items() if holds(rope))
                raise ValueError(f"{method!r} {fails}; known: {known}")
        return chosen

    return AfterValidator(check)


STATIC = methods_that("is not a static method", lambda rope: not rope.dynamic)


def room_for(words: int) -> AfterValidator:
    """A check of lengths: they hold a prompt of so many words, at best one token each. A tokenizer may need more."""

    def check(lengths: tuple[int, ...]) -> tuple[int, ...]:
        if min(lengths) < words:
            raise ValueError(f"the prompt takes {words} tokens at least, without any filler; got {min(lengths)}")
        return lengths

    return AfterValidator(check)


@dataclass(frozen=True)
class Passes:
    """What an evaluation of one model computes.

    runs: (how many forward passes, over how many tokens each). rotations: FLOPs beside them.
    at_once: tokens in the model at one time.
    logit_rows: positions whose logits exist at one time; None: as many as the loss takes at once.
    cached: tokens in a key-value cache. scores: bytes of attention scores that exist beside. disk: bytes that stay.
    note: an assumption behind the numbers that the study does not decide.
    """

    runs: list[tuple[float, int]]
    at_once: int
    logit_rows: int | None = None
    cached: int = 0
    scores: float = 0.0
    rotations: float = 0.0
    disk: float = 0.0
    note: str | None = None


@dataclass(frozen=True)
class Cell:
    """A part of a table that is computed at once: `name` is a file's, `steps` of progress, `rows` makes its rows."""

    name: str
    steps: int
    rows: Callable[["Progress"], Rows]


@dataclass(frozen=True)
class Task:
    """One evaluation of one model.

    seed: the evaluation's own, equal for all models, so that they are asked the same.
    columns: model, arm, method, scale, seed: what every row of the table begins with.
    model: fp32 weights, evaluation mode, `rope` in force, the device's fastest exact attention chosen.
    tokenizer: the tokenizer's folder.
    progress: makes a Progress from (total, unit).
    datasets: the evaluation's own name for a dataset → its folder.
    partial_results: keeps what is computed, for an attempt that follows one that ended early.
    processes, threads: of the settings; who computes the parts (side_by_side.py).
    """

    seed: int
    columns: dict[str, Any]
    architecture: "Architecture"
    corpus: "TokenisedCorpus"
    model: "PreTrainedModel"
    rope: Rope
    tokenizer: Path
    progress: Callable[[int, str], "Progress"]
    datasets: dict[str, Path] = field(default_factory=dict)
    partial_results: PartialResults = field(default_factory=PartialResults)
    processes: int = 1
    threads: int = 1

    def labels(self, **own: Any) -> dict[str, Any]:
        """What a row begins with whose method and scale are not the model's: model, arm, seed and `own`."""
        return {key: self.columns[key] for key in ("model", "arm", "seed")} | own

    def make_rope(self, method: str, scale: float = 1.0, **options: Any) -> Rope:
        """A rope for the model, to be put in place of its own."""
        return self.architecture.head.make_rope(method, scale, **options)

    def rows(self, cells: list[Cell], unit: str) -> Rows:
        """The rows of all cells, in order; each cell is a part (partial_results.py). `unit`: what progress counts."""

        def part(number: int, progress: "Progress") -> Rows:
            cell = cells[number]
            return self.partial_results.part(cell.name, progress, cell.steps, partial(cell.rows, progress))

        found = self.side_by_side(part, len(cells), self.progress(sum(cell.steps for cell in cells), unit))
        return [row for rows in found for row in rows]

    def side_by_side(self, work: Callable[[int, "Progress"], Part], parts: int, progress: "Progress") -> list[Part]:
        """[work(0, progress), work(1, progress), …], by the task's processes where it has several and no GPU."""
        from yarnlab.evaluation.side_by_side import side_by_side

        processes = self.processes if self.model.device.type == "cpu" else 1
        return side_by_side(work, parts, progress, processes=processes, threads=self.threads)

    def table(self, cells: list[Cell], unit: str, by: tuple[str, ...] = ()) -> "pd.DataFrame":
        """`rows` as a table, sorted by these columns; their values keep the order in which they first appear."""
        table = pd.DataFrame(self.rows(cells, unit))
        if by:
            table = table.sort_values(list(by), key=lambda column: pd.factorize(column)[0], ignore_index=True)
        return table


@dataclass(frozen=True)
class Outcome:
    """A tidy table, one row per measured value, and what else is kept.

    metrics: a few numbers for the dashboard.
    nll: per-token NLL in nats, float32, (documents, tokens), where curves and bootstraps need it.
    extra: further tables by name, kept beside the first.
    """

    table: "pd.DataFrame"
    metrics: dict[str, float] = field(default_factory=dict)
    nll: "np.ndarray | None" = None
    extra: "dict[str, pd.DataFrame]" = field(default_factory=dict)
