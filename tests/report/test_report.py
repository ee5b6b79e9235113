"""The page: complete, self-contained, honest about what is absent; and the check that finds what is wrong."""

import html
import json
import re
import shutil
from pathlib import Path

import pytest
from analysis.synthetic import write_study

from report.conftest import COMMAND
from yarnlab.analysis.claims import write_claims
from yarnlab.analysis.criteria import CLAIMS
from yarnlab.analysis.figures import FIGURES
from yarnlab.analysis.tables import TABLES
from yarnlab.report.render import check_report, write_report


def visible(study: Path) -> str:
    """The page without scripts, styles and tags."""
    text = (study / "report.html").read_text()
    text = re.sub(r"<(script|style).*?</\1>", " ", text, flags=re.S)
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", text)))


def test_a_complete_study_gives_a_sound_report(reported: Path) -> None:
    """The check finds nothing, and every claim stands on the page with its n."""
    assert check_report(reported) == []
    text = visible(reported)
    for claim in CLAIMS:
        assert claim.title in text
    assert text.count("n = ") > len(CLAIMS)


def test_the_page_links_manifests_and_runs(reported: Path) -> None:
    """Rows lead to their manifest (a file that exists) and to their MLflow run."""
    page = (reported / "report.html").read_text()
    assert 'href="evaluations/perplexity/yarn-s16.manifest.json"' in page
    assert 'href="models/base/manifest.json"' in page
    assert re.search(r'href="http://127\.0\.0\.1:5000/#/experiments/1/runs/[0-9a-f]{32}"', page)


def test_the_further_evaluations_stand_on_the_page(reported: Path) -> None:
    """Every table and figure that has results is drawn; nothing but what the study lacks says 'not run'."""
    page = (reported / "report.html").read_text()
    for name in FIGURES:
        assert f'data-spec="{name}"' in page, name
    for name in TABLES:
        assert "<table>" in page.split(f'id="table-{name}"')[1].split("</section>")[0], name
    assert 'href="evaluations/benchmarks/base.manifest.json"' in page


def test_without_tracking_there_are_no_run_links(tmp_path: Path) -> None:
    """Nothing was published: no link leads to a dashboard."""
    study = write_study(tmp_path / "study")
    (study / "tracking/runs.json").unlink()
    write_report(study, command=COMMAND)
    assert check_report(study) == []
    assert "127.0.0.1" not in visible(study)


@pytest.mark.parametrize("skip", [("perplexity",), ("zero_shot",), ("passkey",), ("training",)])
def test_what_is_absent_says_not_run_and_how_to_run_it(tmp_path: Path, skip: tuple[str, ...]) -> None:
    """The page is still sound, and names the command."""
    study = write_study(tmp_path / "study", skip=skip)
    write_report(study, command=COMMAND)
    assert check_report(study) == []
    text = visible(study)
    assert "not run" in text and text.count(COMMAND) > 1


def test_a_study_that_has_only_begun_has_a_report(tmp_path: Path) -> None:
    """Only study.json exists: every figure and table says 'not run', and nothing breaks."""
    study = write_study(tmp_path / "study")
    for name in ("evaluations", "training", "models", "data", "tracking"):
        shutil.rmtree(study / name)
    write_report(study, command=COMMAND)
    assert check_report(study) == []
    assert visible(study).count("not run") > len(CLAIMS)


@pytest.mark.parametrize("model", ["base", "yarn-s16", "pi-s16"])
def test_one_models_missing_evaluations_leave_the_rest(tmp_path: Path, model: str) -> None:
    """Half-finished studies are the usual case: one model's files are absent, the page is still sound."""
    study = write_study(tmp_path / "study")
    for kind in ("perplexity", "passkey"):
        (study / f"evaluations/{kind}/{model}.parquet").unlink()
        (study / f"evaluations/{kind}/{model}.manifest.json").unlink()
    (study / f"training/{model}.jsonl").unlink()
    write_report(study, command=COMMAND)
    assert check_report(study) == []
    assert f"no perplexity of {model} at" in visible(study)


def test_a_study_of_one_document_and_several_seeds(tmp_path: Path) -> None:
    """One document has no interval: nothing is claimed to hold on it, and nothing breaks."""
    study = write_study(tmp_path / "study", seeds=(1, 2), documents=1, trials=5)
    write_report(study, command=COMMAND)
    assert check_report(study) == []
    found = json.loads(write_claims(study).read_text())["claims"]
    assert {c["status"] for c in found if c["needs"] in (["perplexity"], ["zero_shot"])} <= {"undecided", "not run"}


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('id="ablation"', 'id="gone"', "section 'ablation' is missing"),
        ("</main>", '<img src="https://example.org/x.png"></main>', "fetches from outside: img https"),
        ("</main>", '<link rel="stylesheet" href="style.css"></main>', "fetches from outside: link"),
        ("</style>", "@import 'x.css';</style>", "a style sheet fetches a file"),
        ("</main>", "<p>loss NaN</p></main>", "'NaN' stands in the text"),
        ("</main>", '<a href="models/gone.json">x</a></main>', "a link leads nowhere: models/gone.json"),
        ('data-claim="', 'data-other="', "no claim was judged"),
        ('data-spec="figure_1"', 'data-lost="figure_1"', "figure 'figure_1' is empty"),
        ('"datasets":{"data-', '"datasets":{},"x":{"data-', "has no data"),
    ],
)
def test_the_check_finds_each_defect(reported: Path, tmp_path: Path, old: str, new: str, problem: str) -> None:
    """A check that cannot fail is a defect: each kind of damage is reported."""
    study = tmp_path / "micro"
    shutil.copytree(reported, study)
    path = study / "report.html"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    assert any(problem in found for found in check_report(study))


def test_a_page_that_is_too_large_or_absent_is_reported(reported: Path, tmp_path: Path) -> None:
    """Five MiB is the limit; no page at all is a problem too."""
    assert "does not exist" in check_report(tmp_path)[0]
    study = tmp_path / "micro"
    shutil.copytree(reported, study)
    with (study / "report.html").open("a") as file:
        file.write(" " * 5 * 2**20)
    assert any("limit is 5 MiB" in found for found in check_report(study))


def test_names_from_the_study_are_escaped(tmp_path: Path) -> None:
    """A title is text, never markup."""
    study = write_study(tmp_path / "study")
    path = study / "study.json"
    path.write_text(path.read_text().replace("The micro study", "<b>bold</b> & co"))
    write_report(study, command=COMMAND)
    page = (study / "report.html").read_text()
    assert "<h1>&lt;b&gt;bold&lt;/b&gt; &amp; co</h1>" in page
