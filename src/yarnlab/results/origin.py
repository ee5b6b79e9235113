"""Where, when and by which code the numbers were made: what the manifests say, in a reader's words.

After a partial rerun models and evaluations are of different commits, and of different machines: all are named.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from yarnlab.results.display import duration
from yarnlab.results.results import Results

Manifest = dict[str, Any]


@dataclass(frozen=True)
class Origin:
    """What the head of a report says; of several commits, machines or versions, each with what it made.

    finished: end of the newest stage, UTC, to the minute; dirty: whether a stage ran with uncommitted changes;
    precision: which models were computed in another number format than the others, '' where none.
    quantised: which models' weights were given quantised, and how, '' where none.
    """

    finished: str
    compute: str
    commits: str
    dirty: bool
    machines: str
    torch: str
    precision: str
    quantised: str


def origin(results: Results) -> Origin | None:
    """From the manifests of the study's data, models and evaluations; None where there are none."""
    manifests = sorted(results.manifests, key=lambda manifest: str(manifest.get("ended") or ""))
    if not manifests:
        return None
    # A stage that does not load torch sees no GPU.
    computed = [m for m in manifests if (m.get("hardware") or {}).get("threads") is not None]
    commits = _named(manifests, commit_of)
    return Origin(
        finished=str(manifests[-1].get("ended") or "")[:16].replace("T", " "),
        compute=duration(sum(float(manifest.get("seconds") or 0) for manifest in manifests)),
        commits=commits and ("commits " if ", " in commits else "commit ") + commits,
        dirty=any(bool((manifest.get("git") or {}).get("dirty")) for manifest in manifests),
        machines=_named(computed or manifests, machine_of, "; "),
        torch=_named(manifests, lambda manifest: str((manifest.get("packages") or {}).get("torch") or "")),
        precision=_precision(results),
        quantised=_quantised(manifests),
    )


def _named(manifests: Iterable[Manifest], read: Callable[[Manifest], str], between: str = ", ") -> str:
    """What `read` finds, each value once; of several, each with the folders whose stages have it."""
    folders: dict[str, list[str]] = {}
    for manifest in manifests:
        if value := read(manifest):
            folders.setdefault(value, []).append(manifest["path"].partition("/")[0])
    if len(folders) < 2:
        return "".join(folders)
    return between.join(f"{value} ({', '.join(sorted(set(made)))})" for value, made in folders.items())


def commit_of(manifest: Manifest) -> str:
    git = manifest.get("git") or {}
    commit = str(git.get("commit") or "")[:12]
    return commit + (" with uncommitted changes" if commit and git.get("dirty") else "")


def machine_of(manifest: Manifest) -> str:
    hardware = manifest.get("hardware") or {}
    gpus = Counter(hardware.get("gpu") or [])
    gpu = ", ".join(f"{n} × {name}" if n > 1 else name for name, n in gpus.items()) or "no GPU"
    cores = f"{hardware['cores']} cores" if hardware.get("cores") else ""
    return ", ".join(part for part in (str(hardware.get("cpu") or ""), cores, gpu) if part) if hardware else ""


def _quantised(manifests: Iterable[Manifest]) -> str:
    """Models whose weights were quantised when they were given: each number is of these, not of the original ones."""
    found = {m["name"]: (m.get("facts") or {}).get("dequantised_from") for m in manifests if m.get("stage") == "train"}
    return "; ".join(f"{name} from {kind}" for name, kind in sorted(found.items()) if kind)


def _precision(results: Results) -> str:
    """For each kind of stage, the models whose precision in force is not that of most.

    `auto` is another format on another machine. Roots, whose weights are made once for all arms, are not compared.
    """
    found: dict[str, dict[str, str]] = {}
    for manifest in results.manifests:
        stage, name = str(manifest.get("stage")), str(manifest.get("name"))
        used = (manifest.get("facts") or {}).get("precision")
        model = results.models.get(name)
        if used and model is not None and (stage != "train" or model.kind == "finetune"):
            found.setdefault({"train": "training"}.get(stage, stage), {})[name] = str(used)
    apart: dict[str, list[str]] = {}
    for stage, used in found.items():
        (usual, _), *others = Counter(used.values()).most_common()
        if others:
            rest = [f"{other} for {', '.join(n for n, p in used.items() if p == other)}" for other, _ in others]
            apart.setdefault(f"in {usual}, but {' and '.join(rest)}", []).append(stage.replace("_", "-"))
    return "; ".join(f"{', '.join(stages)} {how}" for how, stages in apart.items())
