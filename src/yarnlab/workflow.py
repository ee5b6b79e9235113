"""What the Snakefile asks of a study: names, input files, sections and code keys. Rules themselves hold no logic.

Imported at every start of Snakemake, so it must stay light: no torch, no pandas, no MLflow.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

from yarnlab import fingerprint
from yarnlab.cluster.slurm import path_of_jobs
from yarnlab.corpus.local import SOURCES, of_corpus, text_files
from yarnlab.hub.errors import HubError
from yarnlab.hub.local import Sources, content, content_of, local_assets
from yarnlab.hub.lock import hub_assets, lock_file, read_lock
from yarnlab.processes import ALLOCATOR
from yarnlab.provenance import project_root, read_json
from yarnlab.results.registry import Artefact, Figure, Made, Table, criteria_file, figures, made_of, tables
from yarnlab.stages.finished import FORCED
from yarnlab.stages.layout import Layout
from yarnlab.study.check_held_out import held_out_files
from yarnlab.study.data import HubText, HubTokens
from yarnlab.study.evaluations import KINDS
from yarnlab.study.fields import near
from yarnlab.study.load import load_study
from yarnlab.study.read import StudyError, dotted
from yarnlab.study.schema import Study
from yarnlab.study.sections import canonical, digest, execution, section, study_digest
from yarnlab.study.summary import summarise

CONFIG = ("study",)  # the keys of `--config` that rules read


class Workflow:
    """One study as the workflow sees it; all methods are cheap and depend on the study file alone, assets also on the
    hub's lock or on their folder, local text on its files."""

    def __init__(self, study: Study, results: str = "results", named: str | None = None) -> None:
        self.study = study
        self.root = f"{results}/{study.study}"
        self.named = named or study.study  # what `--config study=` must say
        self.models = list(study.instances())
        self._pinned = _pinned(study, Path(self.root))

    @classmethod
    def chosen(cls, config: Mapping[str, object], folder: Path) -> Workflow:
        """The study that Snakemake's `--config` asks for, the micro study by default.

        Raises StudyError for keys that nothing reads, and as `load` does.
        """
        for key in config:
            if key not in CONFIG:
                raise StudyError(f"--config {key}={config[key]}: nothing reads the key {key!r}{near(key, CONFIG)}")
        return cls.load(str(config.get("study", "micro")), folder)

    @classmethod
    def load(cls, chosen: str, folder: Path) -> Workflow:
        """The study of this name in a folder of study files, or the study file at this path (ending in .yaml).

        Raises StudyError with one line per mistake, HubError for a lock of the hub that cannot be read, or
        a folder that is no asset, CorpusError for text of this machine that is not there or can't be read.
        """
        study = load_study(Path(chosen) if chosen.endswith(".yaml") else folder / f"{chosen}.yaml")
        return cls(study, named=chosen)

    def export_environment(self, source: Path) -> None:
        """Set what every job inherits: the package's place, no hub, quiet libraries, an allocator that keeps memory."""
        os.environ["PYTHONPATH"] = path_of_jobs(source, os.environ.get("PYTHONPATH", ""))
        os.environ.pop("SNAKEMAKE_PROFILE", None)  # it may name options of the plugin that jobs lack
        os.environ["YARNLAB_STUDY"] = self.named
        os.environ["YARNLAB_STUDY_SHA256"] = study_digest(self.study)
        # The one rule that downloads is as its caller was; a Snakemake that this one starts inherits the answer.
        os.environ.setdefault("YARNLAB_ASSETS_OFFLINE", os.environ.get("HF_HUB_OFFLINE", "0"))
        os.environ["HF_HUB_OFFLINE"] = "1"  # whatever the caller has; the one rule that downloads takes it back
        for name, value in {
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "TRANSFORMERS_VERBOSITY": "error",
            "TOKENIZERS_PARALLELISM": "true",
            **ALLOCATOR,
        }.items():
            os.environ.setdefault(name, value)

    @staticmethod
    def export_forced(asked: Any) -> None:
        """Tell every job what the options of this call (Snakemake's `dag_settings`) ask to be made again.

        A job that starts for another reason may find its result finished (stages/finished.py).
        """
        names = {*asked.forcerun, *(asked.targets if asked.forcetargets else ()), *("*" if asked.forceall else "")}
        os.environ[FORCED] = "\n".join(sorted(map(os.path.normpath, map(str, names))))

    def folder(self, wildcards: Any) -> str:
        """results/<study>, as a params function."""
        return self.root

    def tokenizer_spec(self) -> str:
        """The section of the study's own tokenizer; empty without one."""
        return canonical(section(self.study, "tokenizer", "")) if self.study.tokenizer is not None else ""

    def spec(self, stage: str) -> Callable[[Any], str]:
        """A params function: the canonical JSON of exactly the section that the job's stage reads."""
        return lambda wildcards: canonical(self.section(stage, self._name(wildcards)))

    def section(self, stage: str, name: str) -> dict[str, Any]:
        """The section of one job; of an asset with its commit or a folder's content, of local text with the files'
        content, so that others make it again.

        What was fetched before it was pinned (the fetch then pins it) stays as it is, without a commit, while it fits.
        """
        found = section(self.study, stage, name)
        pinned = self._pinned.get((stage, name), {})
        if "commit" in pinned:
            made = read_json(Path(self._manifest("asset", name)))
            fits = made.get("facts", {}).get("commit") == pinned["commit"] and "commit" not in made.get("spec", {})
            return found if fits else {**found, **pinned}
        return {**found, **pinned}

    def execution(self, stage: str) -> Callable[[Any, Any], str]:
        """A params function: how the job computes, as JSON. Nothing of it makes a result out of date: it takes `input`,
        and Snakemake leaves such parameters out when it compares a job with what was made before."""
        return lambda wildcards, input: canonical(execution(self.study, stage, self._name(wildcards)))

    def code(self, stage: str) -> Callable[[Any], str]:
        """A params function: what the job is valid by beside its section and inputs (fingerprint.py)."""
        return lambda wildcards: self.key_of(stage, self._name(wildcards))

    def key_of(self, stage: str, name: str) -> str:
        return fingerprint.key(stage, {} if stage in fingerprint.ANALYSIS else section(self.study, stage, name))

    def summary(self) -> str:
        """What study.json holds, as a digest."""
        return digest(summarise(self.study))

    def assets(self) -> list[str]:
        return list(self.study.assets)

    def corpora(self) -> list[str]:
        return list(self.study.corpora)

    def evaluated(self, kind: str) -> list[str]:
        """The models that an evaluation of the study names, one for each seed."""
        evaluation = getattr(self.study.evaluations, kind)
        arms = evaluation.models if evaluation is not None else ()
        return [name for name, (arm, _) in self.study.instances().items() if arm in arms]

    def train_threads(self, wildcards: Any) -> int:
        model = self.study.models[self.study.instances()[wildcards.model][0]]
        return max((phase.parallel.processes * phase.parallel.threads for phase in model.phases), default=1)

    def evaluation_threads(self, kind: str) -> int:
        evaluation = getattr(self.study.evaluations, kind)
        return evaluation.processes * evaluation.threads if evaluation is not None else 1

    def train_source(self, wildcards: Any) -> str:
        """The manifest of what the model is made from: parent, published checkpoint, or tokenizer."""
        arm, seed = self.study.instances()[wildcards.model]
        model = self.study.models[arm]
        if model.parent is not None:
            return self._manifest("train", self.study.name(model.parent, seed))
        # A published model: its own files, wherever its text's tokenizer comes from.
        return self._tokenizer(model.hub.asset if model.hub is not None else None)

    def train_corpora(self, wildcards: Any) -> list[str]:
        arm, _ = self.study.instances()[wildcards.model]
        phases = self.study.models[arm].phases
        return [self.corpus(name) for name in sorted({name for phase in phases for name in phase.shares})]

    def corpus_tokenizer(self, wildcards: Any) -> str:
        return self._tokenizer(self.study.corpora[wildcards.corpus].tokenizer)

    def corpus_dataset(self, wildcards: Any) -> list[str]:
        """The manifest of the dataset that a corpus is made from; none for packages and local text."""
        corpus = self.study.corpora[wildcards.corpus]
        return [self._manifest("asset", corpus.asset)] if isinstance(corpus, HubText | HubTokens) else []

    def evaluation_corpus(self, kind: str) -> Callable[[Any], str]:
        return lambda wildcards: self.corpus(section(self.study, kind, wildcards.model)["evaluation"]["corpus"])

    def evaluation_datasets(self, kind: str) -> list[str]:
        """The datasets that an evaluation reads itself."""
        evaluation = getattr(self.study.evaluations, kind)
        names = sorted(evaluation.datasets.values()) if evaluation is not None else []
        return [self._manifest("asset", name) for name in names]

    def _manifest(self, stage: str, name: str) -> str:
        return str(Layout(Path(self.root)).manifest(stage, name))

    def _tokenizer(self, asset: str | None) -> str:
        return self.corpus("tokenizer") if asset is None else self._manifest("asset", asset)

    def corpus(self, name: str) -> str:
        return self._manifest("corpus", name)

    def model_manifests(self) -> list[str]:
        return [self._manifest("train", name) for name in self.models]

    def overlaps(self) -> list[str]:
        """Where the text that two corpora of one tokenizer share is counted, for every such pair."""
        tokenizers = {name: corpus.tokenizer for name, corpus in self.study.corpora.items()}
        pairs = combinations(self.corpora(), 2)
        return [f"{self.root}/overlap/{a}--{b}.json" for a, b in pairs if tokenizers[a] == tokenizers[b]]

    def asset_manifests(self) -> list[str]:
        return [self._manifest("asset", name) for name in self.assets()]

    def evaluation_manifests(self, *kinds: str) -> list[str]:
        return [self._manifest(kind, name) for kind in kinds for name in self.evaluated(kind)]

    def tables(self) -> dict[str, Table]:
        """The tables that the study has, by name."""
        return self._made_of(tables())

    def figures(self) -> dict[str, Figure]:
        """The figures that the study has, by name."""
        return self._made_of(figures())

    def _made_of(self, registered: Mapping[str, Made]) -> dict[str, Made]:
        kinds = [kind for kind in KINDS if getattr(self.study.evaluations, kind) is not None]
        kinds += ["training"] if any(model.phases for model in self.study.models.values()) else []
        judged = self.study.claims
        controlled = any(model.control_of is not None for model in self.study.models.values())
        return made_of(registered, kinds, form=judged.form, of_paper=judged.published, of_control=controlled)

    def needs(self, artefact: Artefact) -> list[str]:
        """Input files of a table or figure from what it declares to need."""
        files = [f"{self.root}/study.json"]
        for name in artefact.needs:
            if name in KINDS:
                files += self.evaluation_manifests(name)
            elif name == "training":
                files += self.model_manifests()
            elif name == "manifests":
                files += self.manifests()
        return files

    @staticmethod
    def published() -> list[str]:
        """The paper's numbers (config/reference), relative to the working directory."""
        folder = Path(os.path.relpath(project_root() / "config" / "reference"))
        return sorted(str(path) for path in folder.glob("*.csv"))

    def criteria(self) -> str:
        """What the study is judged by, relative to the working directory."""
        return os.path.relpath(criteria_file(self.study.claims.form))

    def executions(self) -> dict[tuple[str, str], str]:
        """(stage, name) of all that the study runs → the manifest that it writes."""
        names = {"asset": self.assets(), "tokenizer": ["tokenizer"] if self.study.tokenizer is not None else []}
        names |= {"corpus": self.corpora(), "train": self.models} | {kind: self.evaluated(kind) for kind in KINDS}
        return {(stage, name): self._manifest(stage, name) for stage, own in names.items() for name in own}

    def analysis(self) -> str:
        """What names every table, figure and claim of the study."""
        return f"{self.root}/analysis.json"

    def manifests(self) -> list[str]:
        """Every manifest that the study's stages write."""
        return list(self.executions().values())

    def partial_report(self) -> Iterator[str]:
        """After a failure: what makes a report of what is there, if there is an evaluation."""
        if any(Path(path).exists() for path in self.evaluation_manifests(*KINDS)):
            there = shlex.quote(self.root)
            yield (
                f"For a report of what is there: envs/run yarnlab analyse --study-dir {there} && "
                f"envs/run yarnlab report --study-dir {there}"
            )

    @staticmethod
    def _name(wildcards: Any) -> str:
        for key in ("model", "corpus", "asset"):
            if hasattr(wildcards, key):
                return str(getattr(wildcards, key))
        return ""


def _pinned(study: Study, root: Path) -> dict[tuple[str, str], dict[str, str]]:
    """(stage, name) → the commit that the hub's lock has for an asset now, or the hash of what files hold now."""
    hub = hub_assets(study.assets)
    locked = read_lock(lock_file()) if hub else {}
    found = {("asset", name): {"commit": locked[a.key].commit} for name, a in hub.items() if a.key in locked}
    for name, local in local_assets(study.assets).items():
        try:
            found["asset", name] = {"content": content(local, root / "assets" / name)}
        except HubError as error:
            raise HubError(f"assets.{name}: {error}") from None
    sources: dict[str, Sources] = {}
    for name, texts in text_files(study.corpora).items():
        with of_corpus(name):
            sources[name] = texts.read(read_json(root / "data" / name / SOURCES))
        found["corpus", name] = {"content": content_of(sources[name])}
    if problems := list(held_out_files(study, sources)):
        raise StudyError("\n".join(f"{dotted(path)}: {problem}" for path, problem in problems))
    return found
