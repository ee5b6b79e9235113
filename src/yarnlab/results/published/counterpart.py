"""Which of a study's models and texts a published number is set against, and what to run where there is none yet.

A study that names published models (`published:` in its YAML) is matched by those names only, and its model stands for
the published one where window, method and scale are the published ones too. A study that names none (the micro study)
gets the scale-free analogue: the same method and scale, trained likewise, with lengths in units of the original
context L. An analogue's numbers are shown beside the published ones and never compared in value.

An evaluation's rows name their corpus; the corpus's manifest says where its documents come from. Where the published
side took the first documents that are long enough, the same data set, minimal length and number of documents are the
same documents, since this side always does. How others were selected was not published, and they are never the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from yarnlab.provenance import project_root, read_json
from yarnlab.results.published.data import Cell, Protocol, PublishedModel, load_reference
from yarnlab.results.results import Model, Results

# The released NTK run has the base 20,000, which is s = 1.978, and is called s = 2.
SAME_SCALE = 0.02
PAPER_STUDY = "paper"


@dataclass(frozen=True)
class Counterpart:
    """A study's model in the place of a published one.

    original_context: the study's model's L in tokens; published_context: the published one's.
    analogue: why the two are not comparable in value; None where the model stands for the published one.
    """

    model: Model
    original_context: int
    published_context: int
    analogue: str | None = None

    def length(self, published: float) -> int:
        """A published length in this model's tokens: as many times L."""
        return round(published * self.original_context / self.published_context)

    def published_length(self, own: float) -> float:
        """A length of this model in the published one's tokens: as many times L."""
        return own * self.published_context / self.original_context


@lru_cache(maxsize=1024)
def counterpart_of(results: Results, published: PublishedModel) -> Counterpart | None:
    """The study's model for a published one, or None."""
    if any(model.published for model in results.models.values()):
        names = {name.casefold() for name in published.names}
        named = (m for m in results.models.values() if names & {name.casefold() for name in m.published})
        model = next(named, None)
        return _named(model, published) if model is not None else None
    if published.constants != "paper" or published.scale is None or published.training == "pre-trained":
        return None
    kinds = ("pretrain", "hub") if published.training == "none" else ("finetune",)
    for model in results.arms().values():
        same = model.method == published.method and _same_scale(model.scale, published.scale)
        if same and model.kind in kinds and model.ramp == "dimension":
            own = model.original_context
            why = f"{model.arm} is the scale-free analogue: same method and s, lengths in units of L = {own:,} tokens"
            return Counterpart(model, own, published.original_context, why)
    return None


def _named(model: Model, published: PublishedModel) -> Counterpart:
    own = model.original_context
    # Weights taken over from the hub are the published ones whatever rope the study gives them by name.
    context = published.native_context if model.kind == "hub" else published.original_context
    why = None
    if own != context:
        why = f"{model.arm} has an original context of {own:,} tokens, the published model {context:,}"
    elif model.kind != "hub" and model.method != published.method:
        why = f"{model.arm} has the method {model.method}, the published model {published.method}"
    elif model.kind != "hub" and published.scale is not None and not _same_scale(model.scale, published.scale):
        why = f"{model.arm} has s = {model.scale:g}, the published model {published.scale:g}"
    return Counterpart(model, own, context, why)


def _same_scale(a: float, b: float) -> bool:
    return abs(a - b) <= SAME_SCALE * b


@dataclass(frozen=True)
class Text:
    """Documents read here beside those of a protocol.

    other: why the text is another one, None where it is from the same data set.
    same_documents: whether the very same documents were read.
    """

    other: str | None
    same_documents: bool = False


def text_of(results: Results, corpus: str, protocol: Protocol, documents: int) -> Text:
    """The corpus called `corpus`, of which `documents` documents were read, beside a protocol's text."""
    spec = _corpus(results, corpus)
    if spec is None:
        return Text(f"no manifest says where the corpus {corpus} comes from")
    asset = spec.get("asset")
    repository = _repository(results, str(asset)) if asset else None
    if repository is None:
        return Text(f"the text is the study's own corpus {corpus}, not {protocol.datasets[0]}")
    if repository.casefold() not in {name.casefold() for name in protocol.datasets}:
        return Text(f"the text is {repository}, not {protocol.datasets[0]}")
    counted = documents == protocol.documents and spec.get("min_tokens") == protocol.min_tokens
    return Text(None, protocol.selection == "first" and counted)


@lru_cache(maxsize=64)
def _corpus(results: Results, corpus: str) -> dict[str, Any] | None:
    spec = results.manifest(f"data/{corpus}/manifest.json").get("spec", {}).get("corpus")
    return spec if isinstance(spec, dict) else None


@lru_cache(maxsize=64)
def _repository(results: Results, asset: str) -> str | None:
    manifest = read_json(results.directory / "assets" / asset / "manifest.json")
    repo = manifest.get("spec", {}).get("asset", {}).get("repo")
    return str(repo) if repo else None


def command_for(results: Results, cell: Cell) -> str:
    """The command whose result would fill the cell; empty where no study of this project would.

    For a model that this study has: the job of the evaluation (or training) that is planned for it. For another: the
    whole paper study, if it names the published model.
    """
    reference = load_reference()
    published = reference.model_of(cell)
    if published is None:
        return ""
    counterpart = counterpart_of(results, published)
    if counterpart is None:
        if results.study == PAPER_STUDY or not set(published.names) & _named_by_the_paper_study():
            return ""
        return f"envs/run snakemake --cores all --config study={PAPER_STUDY}"
    kind, model = reference.kind_of(cell), counterpart.model
    if kind in ("setting", "training", "cost", "derived"):
        target = f"models/{model.name}/manifest.json" if model.kind == "finetune" else ""
    else:
        target = f"evaluations/{kind}/{model.name}.manifest.json" if results.plans(kind, model.arm) else ""
    if not target or (results.directory / target).is_file():
        return ""
    return f"envs/run snakemake --cores all results/{results.study}/{target} --config study={results.study}"


@cache
def _named_by_the_paper_study() -> frozenset[str]:
    """Every published name in config/studies/paper.yaml; none where the file is absent."""
    import yaml

    path = project_root() / "config" / "studies" / f"{PAPER_STUDY}.yaml"
    if not path.is_file():
        return frozenset()
    models = (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("models") or {}
    return frozenset(name for model in models.values() if model for name in model.get("published") or ())
