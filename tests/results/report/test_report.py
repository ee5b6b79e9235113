"""The page: complete, self-contained, honest about what is absent; and the check that finds what is wrong."""

import html
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from results.report.check import check_report
from results.report.conftest import COMMAND
from results.synthetic import with_frames, write_study
from yarnlab.results import analyse
from yarnlab.results.claims.criteria import load_criteria
from yarnlab.results.missing import command_for
from yarnlab.results.registry import figures, tables
from yarnlab.results.report import render
from yarnlab.results.report.render import parted
from yarnlab.results.report.sections import SECTIONS, ordered
from yarnlab.results.results import load

FIGURES = figures()
TABLES = {name: table for name, table in tables().items() if "scale-free" in table.forms and not table.of_control}

CLAIMS = [claim for claim in load_criteria().claims if claim.only_with is None]
Write = Callable[[Path], Path]


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


def test_figures_and_published_numbers_link_their_manifests(reported: Path) -> None:
    """As tables do: a figure those of the models that it draws, a count of verdicts and a curve those of ours."""
    page = (reported / "report.html").read_text()
    figure = {name: page.split(f'id="figure-{name}"')[1].split("</figure>")[0] for name in FIGURES}
    assert 'href="evaluations/perplexity/yarn-s32.manifest.json"' in figure["figure_1"]
    assert 'href="evaluations/perplexity/pi-s16.manifest.json"' in figure["ablation"]
    assert "yarn-s32" not in re.sub("<script.*?</script>", "", figure["ablation"], flags=re.S)
    assert all(("manifest.json" in part) == (name not in ("cost", "frequencies")) for name, part in figure.items())
    assert all(('class="run"' in part) == ("manifest.json" in part) for part in figure.values())
    rows = {name: page.split(f'id="table-{name}"')[1].split("</table>")[0] for name in ("verdicts", "published_curves")}
    counts = next(row for row in rows["verdicts"].split("<tr>") if '<th scope="row">Table 2' in row)
    assert 'href="evaluations/perplexity/yarn-s16.manifest.json"' in counts
    for row in rows["published_curves"].split("<tr>")[2:]:
        assert ("manifest.json" in row) == ("not run" not in row)


def test_run_links_lead_to_the_server_that_has_the_runs(
    tmp_path: Path, write_report: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLFLOW_TRACKING_URI without its login; else where `yarnlab dashboard` serves, which may be another port."""
    study = write_study(tmp_path / "study", skip=("perplexity", "zero_shot", "passkey"))
    write_report(study)
    page = (study / "report.html").read_text()
    assert 'href="http://127.0.0.1:5000/#/experiments/' in page and "another port" in page
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:s3cret@mlflow.example.org/team/")
    render.write_report(study, command=COMMAND)
    page = (study / "report.html").read_text()
    assert set(re.findall(r'class="run" href="(.*?)#', page)) == {"https://mlflow.example.org/team/"}
    assert "s3cret" not in page and "127.0.0.1" not in page and "another port" not in page
    assert check_report(study) == []


def test_the_further_evaluations_stand_on_the_page(reported: Path) -> None:
    """Every table and figure that has results is drawn; nothing but what the study lacks says 'not run'."""
    page = (reported / "report.html").read_text()
    for name in FIGURES:
        assert f'data-spec="{name}"' in page, name
    for name in TABLES:
        assert "<table>" in page.split(f'id="table-{name}"')[1].split("</section>")[0], name
    assert 'href="evaluations/benchmarks/base.manifest.json"' in page


@pytest.mark.slow
def test_without_tracking_there_are_no_run_links(tmp_path: Path, write_report: Write) -> None:
    """Runs are linked where they were published; where nothing was, no link leads to a dashboard."""
    study = write_study(tmp_path / "study", skip=("perplexity", "zero_shot", "passkey"))
    write_report(study)
    assert "127.0.0.1" in visible(study)
    (study / "tracking/runs.json").unlink()
    write_report(study)
    assert check_report(study) == []
    assert "127.0.0.1" not in visible(study)


@pytest.mark.parametrize(
    "skip", [("perplexity", "training"), pytest.param(("zero_shot", "passkey"), marks=pytest.mark.slow)]
)
def test_what_is_absent_says_not_run_and_how_to_run_it(
    tmp_path: Path, skip: tuple[str, ...], write_report: Write
) -> None:
    """The page is still sound, and names the command that runs exactly what is absent."""
    study = write_study(tmp_path / "study", skip=skip)
    write_report(study)
    assert check_report(study) == []
    text = visible(study)
    for kind in skip:
        rule = "train" if kind == "training" else kind
        assert text.count(f"To run it: {COMMAND} --until {rule} ") >= 2, kind
    others = {"perplexity", "train", "zero_shot", "passkey"} - {"train" if k == "training" else k for k in skip}
    assert not re.findall(rf"--until ({'|'.join(others)})\b", text)


def test_a_study_that_has_only_begun_has_a_report(tmp_path: Path, write_report: Write) -> None:
    """Only study.json exists: every figure and table says 'not run', nothing breaks, and its title is text."""
    study = write_study(tmp_path / "study")
    for name in ("evaluations", "training", "models", "data", "tracking"):
        shutil.rmtree(study / name)
    path = study / "study.json"
    path.write_text(path.read_text().replace("The micro study", "<b>bold</b> & co"))
    write_report(study)
    assert check_report(study) == []
    assert visible(study).count("not run") > len(CLAIMS)
    assert "<h1>&lt;b&gt;bold&lt;/b&gt; &amp; co</h1>" in (study / "report.html").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("model", ["base", "yarn-s16"])
def test_one_models_missing_evaluations_leave_the_rest(tmp_path: Path, model: str, write_report: Write) -> None:
    """Half-finished studies are the usual case: one model's files are absent, the page is still sound."""
    study = write_study(tmp_path / "study", skip=("zero_shot",))
    for kind in ("perplexity", "passkey"):
        (study / f"evaluations/{kind}/{model}.parquet").unlink()
        (study / f"evaluations/{kind}/{model}.manifest.json").unlink()
    (study / f"training/{model}.jsonl").unlink()
    plan = json.loads((study / "study.json").read_text())
    for kind in ("perplexity", "passkey"):
        plan["evaluations"][kind]["models"] = [entry["arm"] for entry in plan["models"].values()]
    (study / "study.json").write_text(json.dumps(plan))
    write_report(study)
    assert check_report(study) == []
    what, kind = ("passkey trials", "passkey") if model == "base" else ("perplexity", "perplexity")
    assert f"no {what} of {model} at" in visible(study)
    assert f"{COMMAND} --until {kind}" in visible(study)


@pytest.mark.slow
def test_a_study_of_one_document_and_several_seeds(tmp_path: Path, write_report: Write) -> None:
    """One document has no interval: nothing is claimed to hold on it, and nothing breaks."""
    study = write_study(tmp_path / "study", seeds=(1, 2), documents=1, trials=5)
    write_report(study)
    assert check_report(study) == []
    found = json.loads((study / "claims.json").read_text())["claims"]
    assert {c["status"] for c in found if c["needs"] in (["perplexity"], ["zero_shot"])} <= {"undecided", "not run"}


def test_the_command_names_what_is_missing_and_nothing_else(complete: Path, tmp_path: Path) -> None:
    """A kind that is there, or that the study does not plan, has no command; half of one has."""
    results = load(complete)
    assert command_for(results, ("perplexity", "benchmarks.samples", "training"), "run") == ""
    empty = with_frames(results)
    empty.frames.pop("training")
    assert command_for(empty, ("perplexity", "training"), "run") == "run --until train"
    study = tmp_path / "micro"
    shutil.copytree(complete, study)
    (study / "evaluations/passkey/pi-s16.parquet").unlink()
    assert command_for(load(study), ("passkey",), "run") == "run --until passkey"
    plan = json.loads((study / "study.json").read_text())
    plan["evaluations"]["passkey"] = None
    (study / "study.json").write_text(json.dumps(plan))
    assert command_for(load(study), ("passkey",), "run") == ""


@pytest.mark.parametrize(
    ("claim", "mark"),
    [
        ("23", ""),
        ("16", ""),
        ("21", "supported only in part by the paper’s own data"),
        ("26", "contradicted in part by the paper’s own data"),
        ("accept-collapse", ""),
    ],
)
def test_claims_that_the_papers_own_data_contradict_are_marked(claim: str, mark: str) -> None:
    """The mark follows from what the criteria say of the paper's data."""
    assert load_criteria().claim(claim).mark == mark


def test_marked_claims_carry_the_mark_on_the_page(reported: Path) -> None:
    """In the headline and in the table of claims."""
    marks = [claim.mark for claim in CLAIMS if claim.mark]
    assert len(marks) > 5
    assert (reported / "report.html").read_text().count('class="mark"') == 2 * len(marks)


@pytest.mark.parametrize(
    ("cell", "number", "below", "shade"),
    [
        ("14.7 [13.1, 16.4]", "14.7", "13.1, 16.4]", ""),
        ("3.53 reproduced", "3.53", "reproduced", "holds"),
        ("3.53 [3.1, 4.0] not excluded", "3.53 [3.1, 4.0]", "not excluded", "undecided"),
        ("3.99 contradicted", "3.99", "contradicted", "fails"),
        ("not run", "", "not run", "not-run"),
        ("19.3 at 512 (analogue)", "19.3 at 512 (analogue)", "", ""),
    ],
)
def test_a_cell_is_parted_into_number_and_verdict(cell: str, number: str, below: str, shade: str) -> None:
    """An interval or a verdict stands below its number; a verdict has its colour."""
    assert parted(cell) == (number, ("[" if below.endswith("]") else "") + below, shade)


def parts(study: Path) -> dict[str, str]:
    """Every table, figure and claim of a page by its id."""
    page = (study / "report.html").read_text()
    found = {f"figure {name}": spec for name, spec in re.findall(r'data-spec="(\w+)">(.*?)</script>', page, re.S)}
    for kind, pattern in (
        ("table", r'<div id="table-([\w-]+)">(.*?)\n</div>\n'),
        ("claim", r'data-claim="(.*?)">(.*?)</tr>'),
    ):
        found |= {f"{kind} {name}": text for name, text in re.findall(pattern, page, re.S)}
    return found


def test_one_changed_number_changes_exactly_what_depends_on_it(
    reported: Path, tmp_path: Path, write_report: Write
) -> None:
    """From the parquet to the page: the table, the figure and the claim of the entropy, and nothing else."""
    study = shutil.copytree(reported, tmp_path / "micro")
    before = parts(study)
    path = study / "evaluations/entropy/base.parquet"
    frame = pd.read_parquet(path)
    frame.loc[(frame["method"] == "yarn") & (frame["scale"] == 8), "entropy"] += 0.5
    frame.to_parquet(path)
    write_report(study)
    after = parts(study)
    assert before.keys() == after.keys() and len(before) > 60
    assert {name for name in before if before[name] != after[name]} == {
        "table entropy",
        "table entropy_by_layer",
        "figure entropy",
        "claim 16",
    }


@pytest.mark.parametrize("name", ["<!--<script>", "</script><script>alert(1)</script>"])
def test_markup_in_a_name_stays_in_its_chart(
    reported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A document's name, say. A comment that opens a script inside a script would swallow the rest of the page."""
    study = shutil.copytree(reported, tmp_path / "study")
    file = study / "figures" / "figure_1.json"
    figure = json.loads(file.read_text())
    file.write_text(json.dumps(figure | {"spec": figure["spec"] | {"description": name}}))
    monkeypatch.setattr(render, "vega", lambda _: "")
    render.write_report(study, command=COMMAND)
    page = (study / "report.html").read_text()
    assert name not in page and check_report(study) == []
    spec = re.search(r'data-spec="figure_1">(.*?)</script>', page, re.S)
    assert spec is not None and json.loads(spec[1])["description"] == name

    monkeypatch.undo()
    monkeypatch.setattr(analyse, "vega", lambda _: "")
    chart = {"data": {"values": [{"x": name}]}, "mark": "point", "encoding": {"x": {"field": "x", "type": "nominal"}}}
    page = str(analyse.drawn(chart, tmp_path)["html"])
    spec = re.search(r"const spec = (.*);\n", page)
    assert name not in page and spec is not None and json.loads(spec[1]) == chart


def test_a_section_that_only_a_table_names_comes_last() -> None:
    """A new evaluation's table needs no other file to stand on the page."""
    *listed, own = ordered(["ramp", "my-kind", "my-kind"])
    assert (own.id, own.heading) == ("my-kind", "My kind") and listed == list(SECTIONS)


def test_every_published_table_stands_on_the_page(reported: Path) -> None:
    """All published numbers have a place: a value of ours with a verdict, or 'not run'."""
    page = (reported / "report.html").read_text()
    section = page.split('<section id="published"')[1].split("</section>")[0]
    for name in TABLES:
        if re.match(r"table_\d|camera_ready_|verdicts|stated_values|benchmark_results|published_curves", name):
            assert f'id="table-{name}"' in section, name
    assert section.count("not run") > 100


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
        ('"datasets":{', '"datasets":{},"x":{', "has no data"),
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
