"""`yarnlab compare` and `yarnlab gallery` as a user calls them."""

import html
import json
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from results.synthetic import write_study
from yarnlab import cli
from yarnlab.provenance import read_json, write_json
from yarnlab.results.claims.judge import write_claims
from yarnlab.results.report import gallery as gallery_module
from yarnlab.results.report.gallery import markers
from yarnlab.results.results import load
from yarnlab.tracking.dashboard import serve


@pytest.fixture
def yarnlab(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """The command in this process; a mistake exits with its code."""

    def call(*arguments: str) -> None:
        monkeypatch.setattr(sys, "argv", ["yarnlab", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        if ended.value.code:
            raise ended.value

    return call


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study: claims, and files in the places of report and pictures."""
    study = write_study(tmp_path_factory.mktemp("results") / "micro", skip=("zero_shot",))
    write_claims(load(study), "envs/run snakemake")
    (study / "report.html").write_text("<h1>report</h1>")
    (study / "figures").mkdir()
    for name in ("ablation", "figure_1"):
        (study / "figures" / f"{name}.png").write_bytes(b"picture")
    return study


def test_compare_writes_three_files(judged: Path, tmp_path: Path, yarnlab, capsys) -> None:
    """A study and a copy with one claim overturned: named in all three forms, nothing else is called changed."""
    other = tmp_path / "other"
    shutil.copytree(judged, other)
    document = json.loads((other / "claims.json").read_text())
    document["claims"][0]["status"] = "fails"
    (other / "claims.json").write_text(json.dumps(document))
    yarnlab("compare", str(judged), str(other))
    written = [Path(line) for line in capsys.readouterr().out.split()]
    assert [path.name for path in written] == ["comparison.html", "comparison.md", "comparison.csv"]
    assert all(path.parent == tmp_path / "comparisons" / f"{judged.name}--other" for path in written)
    for path in written:
        assert html.escape(document["claims"][0]["title"]) in path.read_text() or path.suffix != ".html"
    assert "fails" in written[2].read_text()


def test_compare_of_no_study_is_one_message(tmp_path: Path, yarnlab, capsys) -> None:
    with pytest.raises(SystemExit):
        yarnlab("compare", str(tmp_path), str(tmp_path), "--results", str(tmp_path))
    assert "is no results folder" in capsys.readouterr().err


def test_a_dashboard_on_another_port_says_what_to_tell_a_report(tmp_path: Path, monkeypatch, capsys) -> None:
    """Run links lead to the first port; where it is in use the command names the address that they need."""
    (tmp_path / "mlflow.db").touch()
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: sys.exit())
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SystemExit):
            serve(tmp_path, port=port)
    out = capsys.readouterr().out
    assert f"Port {port} is in use" in out
    link = re.search(r"http://127\.0\.0\.1:(\d+) at the end of the page", out)
    assert link is not None and int(link[1]) > port and f"Starting MLflow on http://127.0.0.1:{link[1]} " in out


def test_the_gallery_writes_pictures_record_and_readme(judged: Path, tmp_path: Path, yarnlab, monkeypatch) -> None:
    """Without a browser the figures stand in; the README changes between the study's markers only, and what another
    study has there and in gallery.json stays."""
    monkeypatch.setattr(gallery_module, "BROWSERS", ())
    readme, (begin, end) = tmp_path / "README.md", markers(read_json(judged / "study.json")["study"])
    other = "\n".join(("<!-- results of other: begin -->", "theirs", "<!-- results of other: end -->"))
    readme.write_text(f"before\n{begin}\nstale words\n{end}\nafter\n{other}\n")
    write_json(tmp_path / "images" / "gallery.json", {"other": {"finished": "1999-01-01"}})
    yarnlab("gallery", "--study-dir", str(judged), "--images", str(tmp_path / "images"), "--readme", str(readme))
    records = json.loads((tmp_path / "images" / "gallery.json").read_text())
    assert records.pop("other") == {"finished": "1999-01-01"}
    ((name, record),) = records.items()
    assert set(record["pictures"]) == {f"{name}-report.png", f"{name}-figure.png"} and record["finished"]
    text = readme.read_text()
    assert text.startswith("before\n") and text.endswith(f"{end}\nafter\n{other}\n") and "stale words" not in text
    assert (
        "| claim | verdict | number |" in text
        and record["commits"] in text
        and "commit 0123456789ab, 2026-01-01" in text
    )


def test_the_gallery_refuses_a_readme_without_its_markers(judged: Path, tmp_path: Path, yarnlab, capsys) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("mine\n")
    with pytest.raises(SystemExit):
        yarnlab("gallery", "--study-dir", str(judged), "--images", str(tmp_path), "--readme", str(readme))
    assert readme.read_text() == "mine\n" and "<!-- results of" in capsys.readouterr().err
