"""MLflow's own pages in a browser: what the printed link opens, curves that are drawn, a model's lineage, the report."""

import json
import urllib.error
from urllib.request import Request, urlopen

import pytest
from results.report import chromium
from tracking.dashboard_pictures import browser, dashboard, pages
from tracking.test_models import DATA

from yarnlab.tracking import executions


def train(study, name, parent, scale):
    tags = {"model": name, "arm": name, "method": "yarn", "scale": scale, "parent": parent}
    study.start(name, spec={"kind": "finetune", "phases": [{"lr": 0.1}]}, tags=tags)
    for step in range(1, 20):
        study.step(step, name, tokens=100 * step)
    study.end(name, datasets=DATA, seconds=3.0)
    lengths = (64, 128, 256, 512)
    curves = {f"nll/{n}": 5 - n / 1000 for n in lengths} | {f"perplexity/{n}": 90 - n / 10 for n in lengths}
    study.evaluate("perplexity", curves, name, datasets=DATA)
    study.evaluate("passkey", {f"passkey/{n}": 0.5 for n in lengths}, name, datasets=DATA)


@pytest.mark.browser
@pytest.mark.skipif(chromium.find() is None, reason="no Chromium on this machine")
def test_the_printed_link_leads_to_what_matters(study, store, closed_port):
    """Model training, not language-model applications; groups, columns, charts, lineage, report."""
    study.execute()
    for name, parent, scale in (("base", "", "1"), ("s16", "base", "16"), ("s32", "s16", "32")):
        train(study, name, parent, scale)
    (study.directory / "report.html").write_text("<h1>What held</h1>")
    (study.directory / "analysis.json").write_text(json.dumps({"ended": "2090-01-01T00:00:00.000Z"}))
    executions.end_execution(study.directory)
    results = study.directory.parent
    with dashboard(results, closed_port) as links, browser() as tab:
        found = pages(links[""], "micro")
        assert found["runs"][0] == links["micro"]
        texts = {name: tab.open(url, until) for name, (url, until, _) in found.items()}
        drawn = tab.open(found["charts"][0], found["charts"][1])
        assert "Models compared" in drawn
    shown = texts["runs"]
    assert "Overview\nTraining runs\nObservability" not in shown  # the GenAI menu
    assert [shown.count(f"Group: {name}") for name in ("base", "s16", "s32")] == [1, 1, 1]
    for column in ("stage", "method", "scale", "loss", "perplexity/nll at sL", "passkey at longest"):
        assert column in shown, column
    assert "Made from s16 ← base; trained on math (sympy)." in texts["model"]
    assert "passkey" in texts["model"] and "math (#" in texts["model"]
    assert "Parent run" in texts["run"]


@pytest.mark.slow
def test_a_proxys_name_is_let_in_when_it_is_named(study, store, closed_port, monkeypatch):
    """MLflow refuses a Host header that it does not know; the documented setting lets a proxy's in."""
    study.start()

    def answer(link: str, host: str) -> int:
        try:
            with urlopen(
                Request(f"{link}/api/2.0/mlflow/experiments/get?experiment_id=0", headers={"Host": host})
            ) as got:
                return int(got.status)
        except urllib.error.HTTPError as error:
            return error.code

    for allowed, expected in ((None, 403), ("hub.example.org", 200), ("*.example.org", 200)):
        if allowed:
            monkeypatch.setenv("MLFLOW_SERVER_ALLOWED_HOSTS", allowed)
        with dashboard(study.directory.parent, closed_port) as links:
            assert answer(links[""], "hub.example.org") == expected
            assert answer(links[""], links[""].removeprefix("http://")) == 200
