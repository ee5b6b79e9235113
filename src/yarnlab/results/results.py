"""What a study planned and left on disk: `load(results/<study>)` -> `Results`.

What a study plans stands in its `study.json`; what it has are the tables and manifests of its stages. Only what the
study plans is read: a file left over from a removed model, or from one that an evaluation no longer names, never
reaches a table.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from yarnlab.errors import UserError
from yarnlab.lazy import np, pd
from yarnlab.rope import Head


class ResultsError(UserError):
    """A results directory cannot be read; the message says what, where and what to do."""


@dataclass(frozen=True)
class Model:
    """One model of the study, as `study.json` describes it; lengths in tokens.

    ramp: 'dimension' (official code) or 'rotations' (paper, Eq. 18), for methods that have a ramp; truncate: whether
    its borders are rounded; alpha, beta: rotations within the original context at them. attention_factor: √(1/t).
    max_position_embeddings: the context, where scale and L do not say it. head_dim, rope_theta: D and b of an attention
    head; family_alpha, family_beta: the borders that suit it. tokens: that it was trained on, in `steps`; batches: as
    JSON, what decides with the seed which ones a batch holds: corpus, kinds of rows, their length, rows a batch.
    control_of: the arm whose weights these are, quantised once more.
    """

    name: str
    arm: str
    method: str
    scale: float
    parent: str | None
    seed: int
    trained_length: int | None
    kind: str
    ramp: str = "dimension"
    original_context: int = 0
    head_dim: int = 128
    rope_theta: float = 10_000.0
    family_alpha: float = Head.alpha
    family_beta: float = Head.beta
    published: tuple[str, ...] = ()
    truncate: bool = True
    alpha: float = 1.0
    beta: float = 32.0
    attention_factor: float = 1.0
    max_position_embeddings: int | None = None
    steps: int = 0
    tokens: int = 0
    batches: str = ""
    control_of: str | None = None

    @classmethod
    def of(cls, name: str, entry: dict[str, Any]) -> Model:
        """The model that an entry of `study.json` describes. Raises KeyError or TypeError for a bad one."""
        given = {"max_position_embeddings": None, "control_of": None, **entry}  # which few have
        own = {field.name: given[field.name] for field in fields(cls) if field.name != "name"}
        own |= {"published": tuple(own["published"]), "batches": json.dumps(own["batches"], sort_keys=True)}
        # A method without a ramp, and its options, has none to describe: null.
        own |= {key: own[f"family_{key}"] for key in ("alpha", "beta") if own[key] is None}
        absent = [key for key in ("ramp", "truncate") if own[key] is None]
        return cls(name, **{key: value for key, value in own.items() if key not in absent})

    @property
    def recipe(self) -> tuple[float, int | None, str]:
        """Scale, row length and batches: what arms that are compared must share, however long they were trained."""
        return self.scale, self.trained_length, self.batches

    @property
    def budget(self) -> tuple[Any, ...]:
        """Recipe, steps and tokens: what arms that are compared after the whole training must share."""
        return *self.recipe, self.steps, self.tokens

    @property
    def ramp_settings(self) -> tuple[str, bool, float, float]:
        """What its frequencies follow from beside method and scale."""
        return self.ramp, self.truncate, self.alpha, self.beta

    @property
    def official_ramp(self) -> bool:
        """Is its ramp, if it has one, the official code's, rounded and with the borders that suit its family?"""
        return self.ramp_settings == ("dimension", True, self.family_alpha, self.family_beta)

    @property
    def context(self) -> float:
        """The tokens that it is extended to: s·L, or what is declared where its scale does not say it (llama3)."""
        return self.max_position_embeddings or self.scale * self.original_context

    @property
    def head(self) -> Head:
        """What ropes are made for."""
        return Head(self.original_context, self.head_dim, self.rope_theta, self.family_alpha, self.family_beta)


@dataclass(frozen=True, eq=False)
class Results:
    """Everything the analysis reads. `frames`: one table for each kind of results found on disk.

    The kinds are the evaluations, their further tables ('benchmarks.samples') and 'training'. Compared and hashed
    by identity, so that what is derived from it can be cached. `form` and `claim_bases`: how claims are judged and
    which root each group of claims is about; `published_tables`: whether the paper's tables are made (study/schema.py:
    Claims). `unreadable`: kinds that are on disk and can't be
    used, each with the message that says why.
    """

    directory: Path
    study: str
    title: str
    original_context: int
    study_sha256: str
    models: dict[str, Model]
    evaluations: dict[str, Any]
    frames: dict[str, pd.DataFrame] = field(default_factory=dict)
    manifests: list[dict[str, Any]] = field(default_factory=list)
    notes: tuple[str, ...] = ()
    form: str = "scale-free"
    published_tables: bool = False
    claim_bases: dict[str, str | None] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)

    def has(self, need: str) -> bool:
        """Is there anything of an evaluation, of 'training' or of 'manifests'?"""
        return bool(self.manifests) if need == "manifests" else need in self.frames or need in self.unreadable

    def frame(self, need: str) -> pd.DataFrame:
        """The frame called `need`; ResultsError when it is not there, or can't be used."""
        if need in self.unreadable:
            raise ResultsError(self.unreadable[need])
        if need not in self.frames:
            raise ResultsError(f"{self.directory}: no {_words(need)} results; run that evaluation first")
        return self.frames[need]

    def missing(self, needs: tuple[str, ...]) -> str | None:
        """Why something of `needs` is absent, or None when all of it is there."""
        for need in needs:
            if self.has(need):
                continue
            kind = need.partition(".")[0]
            if kind in self.evaluations and self.evaluations[kind] is None:
                return f"this study does not include the {_words(kind)} evaluation"
            if kind == "training" and not self.trains:
                return "this study trains no model"
            return f"no {_words(need)} results on disk yet"
        return None

    @property
    def trains(self) -> bool:
        """Is any model of the study trained in it?"""
        return any(model.kind in ("pretrain", "finetune") for model in self.models.values())

    def manifest(self, path: str) -> dict[str, Any]:
        """The manifest at this path below the study's folder; empty where there is none."""
        return next((manifest for manifest in self.manifests if manifest["path"] == path), {})

    def arms(self) -> dict[str, Model]:
        """The first model of every arm, in the study's order."""
        arms: dict[str, Model] = {}
        for model in self.models.values():
            arms.setdefault(model.arm, model)
        return arms

    def members(self, arm: str) -> list[str]:
        """Names of the models (one per seed) of an arm."""
        return [m.name for m in self.models.values() if m.arm == arm]

    def base(self) -> Model | None:
        """The model that the others start from; of several roots the one with the most methods fine-tuned from it.

        A control is one only where it stands alone.
        """
        roots = [m for m in self.arms().values() if m.kind in ("pretrain", "hub")]
        return max(roots, key=lambda m: (m.control_of is None, self._methods_from(m)), default=None)

    def _methods_from(self, root: Model) -> int:
        arms = self.arms().values()
        return len({m.method for m in arms if m.kind == "finetune" and self.parent_arm(m) == root.arm})

    def root(self, arm: str) -> str:
        """The arm at the root of an arm's tree."""
        arms = self.arms()
        while (parent := self.parent_arm(arms[arm])) is not None:
            arm = parent
        return arm

    def standing_for(self, published: str) -> Model | None:
        """The first arm that stands for a model of the paper's tables."""
        return next((m for m in self.arms().values() if published in m.published), None)

    def plans(self, kind: str, arm: str) -> bool:
        """Is an evaluation planned for this arm?"""
        planned = self.evaluations.get(kind)
        return planned is not None and any(self.models[name].arm == arm for name in evaluated(self.models, planned))

    def alike(self, a: Model, b: Model, *, as_long: bool = True) -> bool:
        """Were two arms fine-tuned alike: from one parent arm, at one scale, on the same batches, for as many steps?

        Batches are the same where corpus, kinds of rows, their length and rows a batch are. `as_long=False`: the steps,
        and with them the tokens, may differ.
        """
        same = a.kind == b.kind == "finetune" and self.parent_arm(a) == self.parent_arm(b)
        return same and (a.budget == b.budget if as_long else a.recipe == b.recipe)

    def beside(self, model: Model, method: str, *, as_long: bool = True) -> Model | None:
        """The first arm with this method that was fine-tuned as this model was (`alike`)."""
        others = (m for m in self.arms().values() if m.method == method)
        return next((m for m in others if self.alike(m, model, as_long=as_long)), None)

    def extension(self) -> Model | None:
        """The arm that a study about one model is about: the first that is trained from the base with another rope
        than RoPE, else the first that is made of it without training."""
        base = self.base()
        arms = [m for m in self.arms().values() if base is not None and self.parent_arm(m) == base.arm]
        made = [m for m in arms if m.method != "none" and m.scale > 1]
        return next((m for m in made if m.kind == "finetune"), next(iter(made), None))

    def last_doubling(self) -> tuple[int, int]:
        """The tokens in (c/2, c], c being the longest doubling of L within the extension's context."""
        extended, reached = self.extension(), self.original_context
        while extended is not None and 2 * reached <= extended.context:
            reached *= 2
        return reached // 2, reached

    def untrained(self, model: Model, method: str) -> Model | None:
        """The arm with this method and a model's scale that has the weights of the model's parent; of the model's own
        method with its ramp."""
        parent = self.parent_arm(model)
        arms = (m for m in self.arms().values() if m.kind == "zero-shot" and self.parent_arm(m) == parent)
        alike = (m for m in arms if (m.method, m.scale) == (method, model.scale))
        own = method == model.method
        return next((m for m in alike if not own or m.ramp_settings == model.ramp_settings), None)

    def control(self, model: Model) -> Model | None:
        """The arm trained as this one was with its RoPE unchanged; None for no such arm.

        Of a continued model it is the arm that continues its parent's control alike.
        """
        found = self.beside(model, "none")
        parent = self.models.get(model.parent or "")
        if found is not None or parent is None or parent.kind != "finetune":
            return found
        before = self.control(parent)
        arms = (m for m in self.arms().values() if m.method == "none" and m.budget == model.budget)
        return next((m for m in arms if before is not None and self.parent_arm(m) == before.arm), None)

    def requantised(self) -> list[tuple[Model, Model]]:
        """Every arm that has a control of its weights quantised once more, with that control."""
        arms = self.arms()
        return [(arms[m.control_of], m) for m in arms.values() if m.control_of is not None]

    def parent_arm(self, model: Model) -> str | None:
        """The arm of a model's parent."""
        parent = self.models.get(model.parent or "")
        return parent.arm if parent else None

    def ablation(self) -> list[Model]:
        """Arms fine-tuned from the base at the scale that most methods share, YaRN first."""
        base = self.base()
        if base is None:
            return []
        arms = [m for m in self.arms().values() if m.kind == "finetune" and self.parent_arm(m) == base.arm]
        scales = {m.scale: len({n.method for n in arms if n.scale == m.scale}) for m in arms}
        if not scales:
            return []
        scale = max(scales, key=lambda s: (scales[s], s))
        return sorted((m for m in arms if m.scale == scale), key=lambda m: (m.method != "yarn", not m.official_ramp))

    def extended(self) -> Model | None:
        """The YaRN arm that another one continues at a larger scale (s=16 in the paper), else the ablation's."""
        base = self.base()
        arms = [m for m in self.arms().values() if m.method == "yarn" and m.kind == "finetune"]
        for model in arms:
            own = base is not None and self.parent_arm(model) == base.arm
            if own and any(self.parent_arm(m) == model.arm and m.scale > model.scale for m in arms):
                return model
        return next((m for m in self.ablation() if m.method == "yarn"), None)

    def continued(self) -> Model | None:
        """The YaRN arm trained on from `extended` at a larger scale (s=32 in the paper)."""
        first = self.extended()
        if first is None:
            return None
        arms = (m for m in self.arms().values() if m.method == "yarn" and m.scale > first.scale)
        return next((m for m in arms if self.parent_arm(m) == first.arm), None)


def load(directory: Path | str) -> Results:
    """Read `study.json` and all result files under `directory` (results/<study>).

    Raises ResultsError when `study.json` is absent or cannot be read; a table that lacks columns, when it is asked for.
    """
    from yarnlab.study.evaluations import KINDS

    directory = Path(directory)
    path = directory / "study.json"
    if not path.is_file():
        raise ResultsError(f"{path} is missing: run the study first (it writes this file before any stage)")
    try:
        study = json.loads(path.read_text())
        models = {name: Model.of(name, entry) for name, entry in study["models"].items()}
        evaluations = {kind: study["evaluations"].get(kind) for kind in KINDS}
        head = {key: study[key] for key in ("study", "title", "original_context", "study_sha256")}
        judged = study["claims"]
        head |= {"notes": tuple(study["notes"]), "form": judged["form"], "claim_bases": judged["roots"]}
        head["published_tables"] = judged["published"]
    except (ValueError, KeyError, TypeError) as error:
        raise ResultsError(f"{path} cannot be read ({type(error).__name__}: {error}): rerun the study") from error
    frames, unreadable = read_frames(directory, models, evaluations)
    found = Results(
        directory=directory,
        models=models,
        evaluations=evaluations,
        frames=frames,
        unreadable=unreadable,
        manifests=read_manifests(directory, models, evaluations),
        **head,
    )
    base = found.base()
    if base is None:
        return found
    # A model that was extended before is extended from the window that it has, not from its first pretraining's.
    before = base.context if found.form == "extension" else base.original_context
    return replace(found, original_context=round(before))


def read_frames(
    directory: Path, models: dict[str, Model], planned: dict[str, Any]
) -> tuple[dict[str, pd.DataFrame], dict[str, str]]:
    """The tables under `directory` (results/<study>) of every kind that the study plans, each of its models there.

    And for each kind of which a file lacks columns, or is missing although its manifest names it, in place of its
    table, what to do.
    """
    from yarnlab.study.evaluations import KINDS

    found: dict[str, pd.DataFrame | None] = {}
    unreadable = {}
    for kind, settings in planned.items():
        if settings is not None:
            declared, folder, own = KINDS[kind], directory / "evaluations" / kind, evaluated(models, settings)
            # Further tables lie beside the first: <model>.<name>.parquet, called '<kind>.<name>' here.
            further = {f".{name}": columns for name, columns in declared.FURTHER.items()}
            for suffix, columns in {"": declared.COLUMNS, **further}.items():
                try:
                    found[f"{kind}{suffix}"] = _evaluation(folder, own, columns, suffix)
                except ResultsError as error:
                    unreadable[f"{kind}{suffix}"] = str(error)
    found["training"] = _training(directory, models)
    return {need: frame for need, frame in found.items() if frame is not None}, unreadable


def evaluated(models: dict[str, Model], evaluation: dict[str, Any]) -> list[str]:
    """Names of the models that an evaluation is planned for."""
    return [name for name, model in models.items() if model.arm in evaluation["models"]]


def read_manifests(directory: Path, models: dict[str, Model], planned: dict[str, Any]) -> list[dict[str, Any]]:
    """The manifests of the study's data, models and evaluations, each with its `path` below `directory`."""
    data = sorted(path.relative_to(directory).as_posix() for path in directory.glob("data/*/manifest.json"))
    paths = [*data, *manifests_of_plan(models, planned)]
    return [json.loads((directory / p).read_text()) | {"path": p} for p in paths if (directory / p).is_file()]


def manifests_of_plan(models: dict[str, Model], planned: dict[str, Any]) -> list[str]:
    """Paths, below the study's folder, of the manifests of the models and evaluations that study.json plans."""
    made = [(kind, name) for kind, settings in planned.items() if settings for name in evaluated(models, settings)]
    own = [f"models/{name}/manifest.json" for name in models]
    return own + [f"evaluations/{kind}/{name}.manifest.json" for kind, name in made]


def _evaluation(folder: Path, models: list[str], columns: str, suffix: str) -> pd.DataFrame | None:
    frames: list[pd.DataFrame] = []
    for name in models:
        path = folder / f"{name}{suffix}.parquet"
        if not path.is_file():
            if (manifest := folder / f"{name}.manifest.json").is_file() and path.name in manifest.read_text():
                raise ResultsError(
                    f"{path} is missing, but {manifest.name} names it: delete that and run the study again"
                )
            continue
        frame = pd.read_parquet(path)
        absent = {"model", "arm", "seed", *columns.split()} - set(frame.columns)
        if absent:
            raise ResultsError(f"{path} lacks {', '.join(sorted(absent))}: delete it and run the study again")
        frames.append(frame)
    return pd.concat(frames, ignore_index=True) if frames else None


def _training(directory: Path, models: dict[str, Model]) -> pd.DataFrame | None:
    frames = []
    for model in models.values():
        path = directory / "training" / f"{model.name}.jsonl"
        if model.kind == "zero-shot" or not path.is_file():
            continue
        rows = []
        for line in path.read_text().splitlines():
            try:
                rows.append(json.loads(line))
            except ValueError:
                break  # a stage that is still writing leaves half a last line
        if rows:
            frame = pd.DataFrame(rows).drop_duplicates("step", keep="last")
            frame.insert(0, "model", model.name)
            frame.insert(1, "arm", model.arm)
            frame.insert(2, "seed", model.seed)
            for column in ("text_loss", "answer_loss"):
                frame[column] = frame.get(column, pd.Series(np.nan, index=frame.index)).astype(float)
            frames.append(frame)
    return pd.concat(frames, ignore_index=True) if frames else None


def _words(need: str) -> str:
    return need.replace("_", "-").replace(".", " ")
