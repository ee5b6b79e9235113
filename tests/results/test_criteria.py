"""config/claims.yaml: what it may say, that its words follow from its numbers, and that a claim is one entry."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from results.light import light
from yarnlab.provenance import project_root
from yarnlab.results.claims import judge
from yarnlab.results.claims.criteria import Claim, Form, load_criteria
from yarnlab.results.claims.notation import Window, bound, order
from yarnlab.results.claims.special import SPECIAL
from yarnlab.results.registry import criteria_file
from yarnlab.results.results import load
from yarnlab.study.read import StudyError

FILE = project_root() / "config" / "claims.yaml"
CLAIMS = [claim for form in ("scale-free", "extension") for claim in load_criteria(criteria_file(form)).claims]
FORMS = [form for claim in CLAIMS for form in (claim, claim.full_scale) if form is not None]
Edited = Callable[..., Path]


@pytest.fixture
def edited(tmp_path: Path) -> Edited:
    """A copy of the file with one text replaced by another."""

    def edit(old: str = "", new: str = "") -> Path:
        text = FILE.read_text(encoding="utf-8")
        assert old in text
        copy = tmp_path / f"{len(list(tmp_path.iterdir()))}.yaml"
        copy.write_text(text.replace(old, new, 1) if old else text + new, encoding="utf-8")
        return copy

    return edit


def test_a_claim_is_one_entry(edited: Edited, study_dir: Path) -> None:
    """docs/how-to-claim.md carried out: its entry is judged and written, and the page's data name it."""
    guide = (project_root() / "docs" / "how-to-claim.md").read_text(encoding="utf-8")
    block = guide[guide.index("    - id: halfway") : guide.index("That is all")]
    name = edited(new="\n" + "\n".join(line[2:] for line in block.splitlines()) + "\n")
    before = (study_dir / "claims.json").read_bytes() if (study_dir / "claims.json").is_file() else None
    with light():
        (written,) = judge.write_claims(load(study_dir), "", load_criteria(name))
    document = json.loads(written.read_text())
    written.write_bytes(before) if before else written.unlink()
    found = document["claims"][-1]
    assert (found["id"], found["status"], found["n"], found["role"]) == ("halfway", "holds", 12, "extension")
    assert found["criterion"].startswith("Perplexity at sL/2 over that at sL/4: the first extended model below 1.")
    assert found["parts"][0]["name"] == "YaRN s=16, perplexity at 2,048 over 1,024 tokens"
    assert found["sources"] == ["evaluations/perplexity/yarn-s16.manifest.json"]
    assert document["criteria_sha256"] != load_criteria().sha256


COLLAPSE = 'of: first, tokens: [sL, 2sL], at: all, against: sL, must: "> 0"'


def test_thresholds_are_hashed_and_comments_are_not(edited: Edited) -> None:
    own = load_criteria().sha256
    assert load_criteria(edited(new="# a remark\n")).sha256 == own
    for old, new in (
        ('must: "<= 1.04"', 'must: "<= 1.05"'),
        ("negligible: 0.02", "negligible: 0.03"),
        ('must: "<= 0.02"}', 'must: "<= 0.03"}'),
    ):
        assert load_criteria(edited(old, new)).sha256 != own


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("any_steps: true", "any_step: true", "claim 33: any_step: unknown key"),
        (
            "quantity: perplexity_ratio, at: L,",
            "quantity: perplexity_ration, at: L,",
            "did you mean 'perplexity_ratio'?",
        ),
        (COLLAPSE, COLLAPSE.replace("all", "1.5sN"), "claim 24: parts.0.at.0: '1.5sN' is no length"),
        (
            COLLAPSE,
            COLLAPSE.replace("at: all, ", ""),
            "claim 24: parts.0: context_change takes against, at, tokens",
        ),
        (COLLAPSE, COLLAPSE.replace("all", "1.5s'L"), "claim 24: context_change: s' needs second in `models`"),
        ('must: "<= 1.04"', 'must: "1.04"', "claim untrained-tax: parts.0.must.0: '1.04' is no bound"),
        ("at: L, order: ntk-by-parts <=", "at: L, order: ntk-by-part <=", "did you mean 'ntk-by-parts'?"),
        ("order: yarn <= pi < ntk-aware", "order: yarn <= pi <", "claim 28: parts.0.order"),
        (
            "judge: other_ramps",
            "judge: other_ramp",
            "special.py has no function 'other_ramp'; did you mean 'other_ramps'?",
        ),
        ("with: {negligible: 0.02}", "with: {neglected: 0.02}", "claim 35: with: other_ramps"),
        ("  at most {negligible:g}", "  at most 0.02", "claim 35: prose: must say negligible"),
        ("paper_data: partly", "paper_data: likely", "claim 5: paper_data"),
        ("needs: [zero_shot]", "needs: [zero_shott]", "needs: there is no kind of results 'zero_shott'; did you mean"),
        ("models: [yarn, pi]", "models: [pi]", "claim 22: models: 'pi' is compared with yarn"),
        ("rows: {second: sL}", "rows: {third: sL}", "rows: 'third' is none of `models`"),
        (
            "of: second, over: first, must:",
            "of: second, must:",
            "claim 26: parts.0: short_text_ratio_net takes `of`, `over`",
        ),
        ("at {at:,} tokens (half", "at {where} tokens (half", "name: there is no {where} in zero_shot_ratio"),
        ('"L, 2L, … sL/2"', '"L, 3L, … sL/2"', "claim 19: parts.1.at.0: 'L, 3L, … sL/2' is no series of doublings"),
        ('id: "35"', 'id: "34"', "two claims are called '34'"),
        ('"6", "35"]', '"6", "53"]', "headline: there is no claim '53'; did you mean '5'?"),
        ('"6", "35"]', '"6", ["35", "7"]]', "headline: '7' stands in it twice"),
        ('"6", "35"]', '"6", 35]', "headline: must be ids of claims, in quotes"),
        ('"6", "35"]', '"6", []]', "and in place of one a list of at least one"),
    ],
)
def test_a_mistake_names_file_line_and_claim(edited: Edited, old: str, new: str, message: str) -> None:
    file = edited(old, new)
    with pytest.raises(StudyError) as raised:
        load_criteria(file)
    assert message in str(raised.value) and "\n" not in str(raised.value)
    assert re.match(rf"{re.escape(str(file))}(:\d+)?: ", str(raised.value))


@pytest.mark.parametrize(
    "form", FORMS, ids=[f.id if isinstance(f, Claim) else f"full-scale-{i}" for i, f in enumerate(FORMS)]
)
def test_a_criterion_says_every_number(form: Form) -> None:
    """Bounds, scales and lengths of the parts; parameters of a function are in its prose by the check of the file."""
    for part in form.parts:
        said = [bound.text for bound in part.must] + [f"{scale:g}" for scale in part.scales]
        said += [f"{length:,}" if isinstance(length, int) else length for length in part.lengths]
        said += [f"{number:g}" for step in part.steps for number in step]
        assert [text for text in said if text not in form.criterion] == []
    assert "{" not in form.criterion and form.criterion.endswith(".")


def test_every_function_is_used() -> None:
    assert {form.judge for form in FORMS} - {None} == set(SPECIAL)


@pytest.mark.parametrize(
    ("length", "tokens"),
    [
        (8192, 8192),
        ("L", 256),
        ("L/2", 128),
        ("2.5L", 640),
        ("sL", 4096),
        ("1.5sL", 6144),
        ("sL/8", 512),
        ("s'L", 8192),
        ("(sL + s'L)/2", 6144),
    ],
)
def test_a_length_in_tokens(length: int | str, tokens: int) -> None:
    assert Window(256, 16.0, 32.0).tokens(length) == tokens


def test_doublings_end_within_their_end() -> None:
    """With s = 12: 256 … 2,048, and sL itself where it is named."""
    assert Window(256, 12.0).all(["L, 2L, … sL"]) == [256, 512, 1024, 2048]
    assert Window(256, 12.0).all(["L/2", "L, 2L, … sL", "sL"]) == [128, 256, 512, 1024, 2048, 3072]


@pytest.mark.parametrize(
    ("text", "sign", "threshold"),
    [
        ("< 1", "<", 1),
        (">= 95 %", ">=", 0.95),
        (">= -1.5 points", ">=", -0.015),
        ("<= exp(0)", "<=", 1),
        ("> ln(1)", ">", 0),
        (">= 159/160", ">=", 0.99375),
    ],
)
def test_a_bound(text: str, sign: str, threshold: float) -> None:
    found = bound(text)
    assert (found.sign, found.threshold) == (sign, threshold)


@pytest.mark.parametrize("text", ["", "1", "< x", "= 1", "<1", 1])
def test_no_bound(text: Any) -> None:
    with pytest.raises(ValueError, match="is no bound"):
        bound(text)


@pytest.mark.parametrize("text", ["", "a", "a b", "a < b >", "a > b", "a < b c"])
def test_no_order(text: str) -> None:
    with pytest.raises(ValueError, match="is no order"):
        order(text)
