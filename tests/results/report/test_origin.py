"""What a report says of where its numbers were made, after partial reruns on other commits and machines too."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from results.synthetic import write_study
from yarnlab.results import analyse
from yarnlab.results.origin import origin
from yarnlab.results.results import load


@pytest.fixture
def study(tmp_path: Path) -> Path:
    return write_study(tmp_path / "study", skip=("zero_shot",))


def rewrite(study: Path, pattern: str, change: Callable[[dict[str, Any]], None]) -> None:
    """Change every manifest that the pattern finds."""
    paths = list(study.glob(pattern))
    assert paths
    for path in paths:
        manifest = json.loads(path.read_text())
        change(manifest)
        path.write_text(json.dumps(manifest))


def test_one_commit_and_one_machine_stand_alone(study: Path) -> None:
    made = origin(load(study))
    assert made is not None and made.finished == "2026-01-01 10:03"
    assert (made.commits, made.machines) == ("commit 0123456789ab", "An imaginary CPU, 2 cores, no GPU")
    assert (made.torch, made.precision, made.dirty) == ("2.13.0+cpu", "", False)


def test_a_partial_rerun_names_every_commit_and_machine(
    study: Path, write_report: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Evaluations of another commit, on GPUs: the newest manifest does not speak for the models."""
    for artefacts in ("tables", "figures"):  # below the head, and long to make
        monkeypatch.setattr(analyse, artefacts, dict)

    def rerun(manifest: dict[str, Any]) -> None:
        manifest["git"] = {"commit": "f" * 40, "dirty": True}
        manifest["hardware"] |= {"gpu": ["Card", "Card"]}
        manifest["ended"] = "2026-02-01T00:00:00+00:00"

    rewrite(study, "evaluations/*/*.manifest.json", rerun)
    made = origin(load(study))
    assert made is not None and made.dirty and made.finished == "2026-02-01 00:00"
    assert made.commits == "commits 0123456789ab (data, models), ffffffffffff with uncommitted changes (evaluations)"
    machine = "An imaginary CPU, 2 cores, "
    assert made.machines == f"{machine}no GPU (data, models); {machine}2 × Card (evaluations)"
    head = write_report(study).read_text().split("</header>")[0]
    assert made.commits in head and made.machines in head


def test_a_stage_without_torch_says_nothing_of_gpus(study: Path) -> None:
    """Downloads and tokenisation do not see the GPU that the models were trained on."""
    rewrite(study, "data/*/manifest.json", lambda manifest: manifest["hardware"].update(threads=None))
    for pattern in ("models/*/manifest.json", "evaluations/*/*.manifest.json"):
        rewrite(study, pattern, lambda manifest: manifest["hardware"].update(gpu=["Card"]))
    made = origin(load(study))
    assert made is not None and made.machines == "An imaginary CPU, 2 cores, Card"


@pytest.mark.slow
def test_arms_of_another_precision_are_named(study: Path, write_report: Callable[[Path], Path]) -> None:
    """fp32 for some models of a kind makes them incomparable with the others; kinds may differ from each other."""

    def use(precision: str) -> Callable[[dict[str, Any]], None]:
        return lambda manifest: manifest.update(facts={"precision": precision})

    rewrite(study, "models/*/manifest.json", use("bf16"))
    rewrite(study, "models/base/manifest.json", use("fp32"))
    rewrite(study, "evaluations/passkey/*.manifest.json", use("fp32"))
    rewrite(study, "evaluations/perplexity/*.manifest.json", use("bf16"))
    made = origin(load(study))
    assert made is not None and made.precision == ""
    assert "number format" not in write_report(study).read_text()
    for path in ("models", "evaluations/perplexity"):
        rewrite(study, f"{path}/pi-s16*manifest.json" if "/" in path else f"{path}/pi-s16/manifest.json", use("fp32"))
    made = origin(load(study))
    assert made is not None and made.precision == "training, perplexity in bf16, but fp32 for pi-s16"
    assert made.precision in write_report(study).read_text().split("</header>")[0]


def test_weights_that_were_given_quantised_are_named(study: Path) -> None:
    rewrite(study, "models/base/manifest.json", lambda manifest: manifest.update(facts={"dequantised_from": "Q4_1"}))
    made = origin(load(study))
    assert made is not None and made.quantised == "base from Q4_1"


def test_a_study_without_manifests_has_no_origin(tmp_path: Path) -> None:
    study = write_study(tmp_path / "study", skip=("perplexity", "zero_shot", "passkey", "training"))
    for path in study.glob("data/*/manifest.json"):
        path.unlink()
    assert origin(load(study)) is None
