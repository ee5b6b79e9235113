"""The real DAG from text to report, on the smoke study: what runs, what reruns, and what it leaves behind."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import how_tos
import pandas as pd
import pytest
from filelock import FileLock
from results.report.check import check_report

from yarnlab.audit.cells import Cell, find
from yarnlab.audit.chain import chain
from yarnlab.audit.folder import AuditError, Folder, is_no_result
from yarnlab.audit.unfinished import unvouched
from yarnlab.audit.verify import verify
from yarnlab.results.report.gallery import markers
from yarnlab.study.evaluations import KINDS

ROOT = Path(__file__).resolve().parents[1]
STUDIES = ROOT / "config" / "studies"


def snakemake(folder: Path, *arguments: str, study: str | Path = "smoke", project: Path = ROOT, **environment: str):
    """Run the Snakefile of the project, or of a copy of it, in `folder`, where results/ then lies."""
    command = ["snakemake", "--snakefile", str(project / "Snakefile"), "--directory", str(folder), "--cores", "2"]
    return subprocess.run(
        [*command, *arguments, "--config", f"study={study}"],
        capture_output=True,
        text=True,
        cwd=project,
        env={**os.environ, **environment},
        check=False,
    )


def planned(folder: Path, *arguments: str, **options: Any) -> set[tuple[str, str]]:
    """(rule, output's name) of every job that a dry run would run."""
    done = snakemake(folder, "-n", *arguments, **options)
    assert done.returncode == 0, done.stderr
    jobs, rule = set(), ""
    for line in (done.stdout + done.stderr).splitlines():
        if found := re.match(r"(?:local)?rule (\w+):", line.removeprefix("local")):
            rule = found[1]
        elif found := re.match(r"\s+output: (\S+?),?(?:\s|$)", line):
            jobs.add((rule, found[1].removeprefix("results/smoke/")))
    return jobs


def variant(folder: Path, old: str, new: str) -> Path:
    """A copy of the study files in which smoke.yaml differs in one place; keeps the study's name."""
    target = folder / "studies"
    shutil.copytree(STUDIES, target, dirs_exist_ok=True)
    text = (STUDIES / "smoke.yaml").read_text()
    assert old in text
    (target / "smoke.yaml").write_text(text.replace(old, new, 1))
    return target / "smoke.yaml"


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A folder in which the whole smoke study has run."""
    folder = tmp_path_factory.mktemp("study")
    done = snakemake(folder)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("extends: smoke.yaml\nstudy: bad\nseeds: 3\n", "bad.yaml:3: seeds: unknown key"),
        (
            "extends: smoke.yaml\nstudy: bad\nmodels: {pi-s16: {from: bass}}\n",
            "bad.yaml:3: models.pi-s16.from: there is no model",
        ),
    ],
)
def test_a_mistake_in_the_study_is_one_message_before_any_job(tmp_path, text, message):
    for file in STUDIES.glob("*.yaml"):
        shutil.copy(file, tmp_path)
    (tmp_path / "bad.yaml").write_text(text)
    done = snakemake(tmp_path, "-n", study=tmp_path / "bad.yaml")
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_everything_is_there(finished):
    """Report, tables, figures, manifests with all that provenance needs, tracking mirrored."""
    root = finished / "results" / "smoke"
    assert check_report(root) == []
    manifest = json.loads((root / "models" / "yarn-s32" / "manifest.json").read_text())
    for key in [
        "stage",
        "spec",
        "code",
        "inputs",
        "outputs",
        "datasets",
        "git",
        "lock_sha256",
        "packages",
        "hardware",
        "seeds",
        "seconds",
        "peak_memory_bytes",
        "run",
    ]:
        assert manifest[key] not in (None, "", {}), key
    assert manifest["tags"]["parent"] == "yarn-s16"
    assert any(path.endswith("models/yarn-s16/manifest.json") for path in manifest["inputs"])
    runs = json.loads((root / "tracking" / "runs.json").read_text())
    assert {
        "train.base",
        "train.yarn-s32",
        "perplexity.base",
        "passkey.pi-s16",
        "zero_shot.base",
        "corpus.held-out",
    } <= set(runs)
    assert set(KINDS) <= {name.split(".")[0] for name in runs}  # every kind of evaluation has run
    steps = [json.loads(line) for line in (root / "training" / "base.jsonl").read_text().splitlines()]
    assert [line["step"] for line in steps] == list(range(1, 66))


@pytest.mark.slow
def test_a_second_run_has_nothing_to_do(finished):
    start = time.monotonic()
    done = snakemake(finished)
    assert "Nothing to be done" in done.stdout + done.stderr
    assert time.monotonic() - start < 15  # 5 s on a quiet machine; benchmarks/RESULTS.md has the figure


@pytest.mark.slow
def test_touching_every_source_reruns_nothing(finished):
    for file in [*(ROOT / "src").rglob("*.py"), *STUDIES.glob("*.yaml")]:
        file.touch()
    assert planned(finished) == set()


COSTLY = {"asset", "tokenizer", "corpus", "train", *KINDS}  # rules that an edit which changes no number must not plan


@pytest.fixture
def project(tmp_path) -> Path:
    return how_tos.copy_project(tmp_path / "project")


def costly(finished: Path, project: Path, **environment: str) -> set[str]:
    return COSTLY & {
        rule for rule, _ in planned(finished, project=project, PYTHONPATH=str(project / "src"), **environment)
    }


@pytest.mark.slow
def test_edits_that_change_no_number_rerun_nothing_that_costs(finished, project):
    """A constant in modules on which everything rests, a RoPE class that nothing names, the text of a rule's command."""
    for module in (
        "rope",
        "stages/run",
        "modeling",
        "study/training",
        "corpus/build",
        "training/loop",
        "evaluation/nll",
    ):
        with (project / "src" / "yarnlab" / f"{module}.py").open("a") as file:
            file.write("\n_EDITED = 1\n")
    with (project / "src" / "yarnlab" / "rope.py").open("a") as file:
        file.write('\n\nclass Mine(YaRN):\n    method = "mine"\n\n\nMETHODS["mine"] = Mine\n')
    for rules in (project / "workflow" / "rules").glob("*.smk"):
        rules.write_text(rules.read_text().replace(" --study-dir", "  --study-dir"))
    assert costly(finished, project) == set()


@pytest.mark.slow
def test_a_new_method_and_a_new_kind_run_alone(finished, project):
    """docs/how-to-method.md and how-to-evaluation.md: what names them is planned, and what shows all results."""
    how_tos.add_method(project)
    how_tos.add_model(project, "micro.yaml")  # which the smoke study extends
    smoke = project / "config" / "studies" / "smoke.yaml"
    model = "  power-s16: {rope: {method: power, scale: 4}, train: *extension}\nevaluations:\n"
    how_tos.edit(smoke, "evaluations:\n", model)
    how_tos.edit(smoke, "sliding_window: {models: [yarn-s16, ", "sliding_window: {models: [yarn-s16, power-s16, ")
    how_tos.add_kind(project, "smoke.yaml")
    jobs = planned(finished, project=project, PYTHONPATH=str(project / "src"))
    assert {job for job in jobs if job[0] in {*COSTLY, "echo"}} == {
        ("train", "models/power-s16/manifest.json"),
        ("sliding_window", "evaluations/sliding_window/power-s16.manifest.json"),
        ("echo", "evaluations/echo/base.manifest.json"),
        ("echo", "evaluations/echo/yarn-s16.manifest.json"),
    }


@pytest.mark.slow
def test_a_formula_reruns_what_computes_with_it(finished, project):
    formula = project / "src" / "yarnlab" / "rope.py"
    formula.write_text(formula.read_text().replace("rotations * 2 * math.pi", "rotations * math.pi * 2"))
    jobs = planned(finished, project=project, PYTHONPATH=str(project / "src"))
    trained = {name for rule, name in jobs if rule == "train"}
    assert "models/yarn-s16/manifest.json" in trained and "models/base/manifest.json" not in trained
    assert "models/pi-s16/manifest.json" not in trained and not {"corpus", "tokenizer"} & {rule for rule, _ in jobs}


@pytest.mark.slow
def test_another_version_of_a_package_that_is_read_makes_its_corpus_again(finished, tmp_path):
    other = tmp_path / "networkx-99.0.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: networkx\nVersion: 99.0\n")
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    corpora = {name for rule, name in planned(finished, PYTHONPATH=path) if rule == "corpus"}
    assert corpora == {"data/reports/manifest.json"}


@pytest.mark.slow
def test_inputs_that_are_made_again_to_the_same_bytes_train_and_compute_nothing(finished):
    """All corpora anew: every model and evaluation is put back; asked for by name, one is made again."""
    root = finished / "results" / "smoke"
    models = {path: path.stat().st_mtime_ns for path in root.glob("models/*/model.safetensors")}
    targets = [
        *("results/smoke/" + str(path.relative_to(root)) for path in root.glob("models/*/manifest.json")),
        "results/smoke/evaluations/perplexity/base.manifest.json",
        "results/smoke/evaluations/benchmarks/base.manifest.json",
    ]
    done = snakemake(finished, *targets, "-R", "corpus")
    said = done.stdout + done.stderr
    assert done.returncode == 0, said[-3000:]
    trained = len([path for path in root.glob("training/*.jsonl")])
    assert said.count("put back") == trained + 2 and not re.search("steps/s|s/step", said)
    assert {path: path.stat().st_mtime_ns for path in models} == models
    assert COSTLY.isdisjoint(rule for rule, _ in planned(finished, *targets))
    done = snakemake(finished, targets[-2], "-R", "perplexity")
    assert done.returncode == 0 and "put back" not in done.stdout + done.stderr
    assert snakemake(finished).returncode == 0


@pytest.mark.slow
def test_files_that_disappear_are_named_and_made_again(finished):
    table = finished / "results/smoke/evaluations/perplexity/pi-s16.parquet"
    before = table.read_bytes()
    table.unlink()
    done = snakemake(finished, "-n")
    assert "perplexity pi-s16: evaluations/perplexity/pi-s16.parquet is missing" in done.stderr
    target = done.stderr.split(" -R ")[1].split()[0]
    assert snakemake(finished, "-R", target).returncode == 0
    assert table.read_bytes() == before
    assert planned(finished) == set()


@pytest.mark.slow
def test_a_failed_evaluation_leaves_a_report_of_the_rest(finished, tmp_path):
    """What Snakemake says at its end makes it, and it says what was not run."""
    folder = shutil.copytree(finished, tmp_path / "study", symlinks=True)
    results = folder / "results" / "smoke"
    for name in ("evaluations/perplexity/pi-s16.parquet", "evaluations/perplexity/pi-s16.manifest.json",
                 "study.json", "analysis.json", "report.html"):  # fmt: skip
        (results / name).unlink()
    done = snakemake(folder, "report", YARNLAB_ATTENTION="nonsense")
    assert done.returncode != 0 and not (results / "report.html").exists()
    (said,) = [line for line in done.stderr.splitlines() if line.startswith("For a report of what is there: ")]
    for command in said.partition(": ")[2].replace("envs/run yarnlab", f"{sys.executable} -m yarnlab").split(" && "):
        subprocess.run(command, shell=True, cwd=folder, check=True, capture_output=True)
    assert "pi-s16" not in (results / "tables/perplexity.csv").read_text() and check_report(results) == []
    assert "--until perplexity" in (results / "report.html").read_text()


@pytest.mark.slow
def test_how_a_job_computes_makes_nothing_out_of_date(finished, tmp_path):
    """Threads, recomputation and the time between checkpoints: no model and no evaluation is made again."""
    old = "threads: 1, sharding: replicate, activation_checkpointing: none}\n          checkpoint_minutes: 2"
    new = "threads: 2, sharding: replicate, activation_checkpointing: full}\n          checkpoint_minutes: 3"
    assert planned(finished, "models", "evaluations", study=variant(tmp_path, old, new)) == set()
    other = variant(
        tmp_path, "scales: [2, 4], max_length: 1024, threads: 1", "scales: [2, 4], max_length: 1024, threads: 2"
    )
    assert planned(finished, "models", "evaluations", study=other) == set()


@pytest.mark.slow
def test_an_evaluation_setting_reruns_that_evaluation_and_what_shows_it(finished, tmp_path):
    """More passkey trials: passkey jobs, the tables and figures that show passkeys, claims and report."""
    rules = {rule for rule, _ in planned(finished, study=variant(tmp_path, "trials: 10", "trials: 12"))}
    assert "passkey" in rules
    assert not rules & {"train", "perplexity", "zero_shot", "corpus", "tokenizer"}


@pytest.mark.slow
def test_forcing_a_model_reruns_it_and_its_descendants(finished):
    """yarn-s16 and its child yarn-s32 are trained and evaluated again; base and its other children are not."""
    jobs = planned(finished, "--forcerun", "results/smoke/models/yarn-s16/manifest.json")
    trained = {name for rule, name in jobs if rule == "train"}
    assert trained == {"models/yarn-s16/manifest.json", "models/yarn-s32/manifest.json"}
    evaluated = {name for rule, name in jobs if rule in ("perplexity", "passkey", "zero_shot")}
    assert evaluated and all("yarn-s16" in name or "yarn-s32" in name for name in evaluated)


@pytest.mark.slow
def test_one_training_setting_reruns_that_model_and_its_descendants(finished, tmp_path):
    changed = variant(tmp_path, "rope: {method: yarn, scale: 8}", "rope: {method: yarn, scale: 8, beta: 16.0}")
    assert {name for rule, name in planned(finished, study=changed) if rule == "train"} == {
        "models/yarn-s32/manifest.json"
    }


@pytest.mark.slow
def test_two_clean_runs_give_identical_weights_and_tables(finished, tmp_path):
    """Base, its continuation and an evaluation of each, made again elsewhere: the same bytes."""
    targets = [
        "models/yarn-s16/manifest.json",
        "evaluations/perplexity/yarn-s16.manifest.json",
        "evaluations/passkey/base.manifest.json",
    ]
    done = snakemake(tmp_path, *(f"results/smoke/{target}" for target in targets))
    assert done.returncode == 0, done.stderr[-3000:]
    for model in ("base", "yarn-s16"):
        one, two = (
            (f / "results/smoke/models" / model / "model.safetensors").read_bytes() for f in (finished, tmp_path)
        )
        assert one == two, model
    for table in ("perplexity/yarn-s16", "passkey/base"):
        one, two = (pd.read_parquet(f / "results/smoke/evaluations" / f"{table}.parquet") for f in (finished, tmp_path))
        pd.testing.assert_frame_equal(one, two, check_exact=True)


@pytest.mark.slow
def test_a_dead_tracking_server_costs_a_warning_and_is_made_good_later(finished):
    """Publishing to a closed port succeeds with a warning; the next call, with a live store, publishes again; then
    there is nothing left to do."""
    dead = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
    done = snakemake(finished, "-R", "publish", "--until", "publish", **dead)
    assert done.returncode == 0 and "warning" in done.stdout + done.stderr
    assert ("publish", "tracking/runs.json") in planned(finished)
    assert snakemake(finished).returncode == 0
    assert planned(finished) == set()


@pytest.mark.slow
def test_another_mlflow_upgrades_its_database_and_reruns_nothing_else(finished, tmp_path):
    """After an update of the environment: one job, since no stage depends on when the database was made ready."""
    other = tmp_path / "mlflow-99.0.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: mlflow\nVersion: 99.0\n")
    assert planned(finished, PYTHONPATH=str(tmp_path)) == {("init_tracking", "tracking/ready")}


@pytest.mark.slow
def test_a_lost_tracking_database_is_filled_again(finished):
    """The next call publishes all that is on disk, gives the report the new links, and leaves nothing to do."""
    runs = finished / "results/smoke/tracking/runs.json"
    before = json.loads(runs.read_text())
    # On a busy machine the process that publishes, of low priority, outlives the call, and would make the file anew.
    with FileLock(runs.with_name("mirror.lock"), timeout=300):
        (finished / "results/mlflow.db").unlink()
    rules = {rule for rule, _ in planned(finished)}
    assert {"publish", "report"} <= rules <= {"publish", "report", "crate", "all"}
    assert snakemake(finished).returncode == 0
    after = json.loads(runs.read_text())
    assert after.keys() == before.keys() and after != before
    assert planned(finished) == set()


@pytest.mark.slow
def test_results_without_snakemakes_records_are_compared_with_the_study(finished, tmp_path):
    """They fit what made them; another setting is named, since Snakemake itself would take the old results."""
    shutil.copytree(finished / "results", tmp_path / "results")
    done = snakemake(tmp_path, "-n")
    assert "Snakemake keeps them" not in done.stderr
    changed = variant(tmp_path, "trials: 10", "trials: 12")
    done = snakemake(tmp_path, "-n", study=changed)
    assert "passkey base: made with other settings\n" in done.stderr
    command = done.stderr.split("study=")[1].splitlines()[0].split(" -R ")
    assert command == [str(changed), "passkey"]
    assert {rule for rule, _ in planned(tmp_path, "-R", "passkey", study=changed)} >= {"passkey", "analyse", "report"}


def flip(file: Path, draw: random.Random) -> bytes:
    """Change one bit of a file; returns what it held."""
    content = file.read_bytes()
    at, bit = draw.randrange(len(content)), draw.randrange(8)
    file.write_bytes(content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :])
    return content


@pytest.mark.slow
def test_a_killed_training_resumes(tmp_path, finished):
    """SIGKILL in the middle loses at most the steps since the last checkpoint; the weights end up the same. A bit that
    is flipped meanwhile is found, in any file, and a damaged checkpoint is not gone on from."""
    study = variant(tmp_path, "checkpoint_minutes: 2", "checkpoint_minutes: 0.001")
    root, draw = tmp_path / "results" / "smoke", random.Random(21)
    targets = [f"results/smoke/{name}" for name in ("study.json", "models/base/manifest.json")]
    log = root / "training" / "base.jsonl"
    command = ["snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(tmp_path), "--cores", "2"]
    process = subprocess.Popen([*command, *targets, "--config", f"study={study}"], cwd=ROOT, start_new_session=True)
    while not (log.exists() and len(log.read_text().splitlines()) >= 12):
        assert process.poll() is None, "training ended before it could be killed"
        time.sleep(0.02)
    os.killpg(process.pid, 9)
    process.wait()
    for draft in root.glob("state/base/*/.checkpoint.partial"):  # named whatever it holds
        shutil.rmtree(draft)
    files = {file.relative_to(root).as_posix() for file in root.rglob("*") if file.is_file()}
    exempt = unvouched(Folder(root)) | {name for name in files if is_no_result(name)}
    for name in sorted(files - exempt):
        content = flip(root / name, draw)
        found = [str(finding) for finding in verify(root).findings]
        (root / name).write_bytes(content)
        assert any(name in line for line in found), name
    before, newest = sorted(root.glob("state/base/*/checkpoint-*"))
    flip(newest / draw.choice(["place.json", "rows-00000-of-00001.safetensors"]), draw)
    flip(log, draw)
    snakemake(tmp_path, "--unlock", study=study)
    done = snakemake(tmp_path, "--rerun-incomplete", *targets, study=study)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (done.stdout + done.stderr).count("is not what was written") == 1
    assert f"continuing after step {int(before.name.split('-')[1])}" in done.stdout + done.stderr
    one, two = ((f / "results/smoke/models/base/model.safetensors").read_bytes() for f in (finished, tmp_path))
    assert one == two
    assert [json.loads(line)["step"] for line in log.read_text().splitlines()] == list(range(1, 66))


@pytest.mark.slow
def test_a_finished_study_is_reported_compared_and_shown(finished):
    """Snakemake's own report, in which ours stands, the study beside itself, and a README's block of results."""

    def yarnlab(*arguments: str) -> None:
        command = [sys.executable, "-m", "yarnlab", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd=finished, check=False)
        assert done.returncode == 0, done.stderr[-2000:]

    done = snakemake(finished, "--report", "snakemake-report.html")
    assert done.returncode == 0, done.stderr[-2000:]
    page = (finished / "snakemake-report.html").read_text()
    assert "arxiv.org/abs/2309.00071" in page and "a verdict for every claim" in page  # our descriptions
    yarnlab("compare", "smoke", "smoke")
    assert "smoke" in (finished / "results/comparisons/smoke--smoke/comparison.md").read_text()
    (finished / "README.md").write_text("\n".join(markers("smoke")))
    yarnlab("gallery", "--study-dir", "results/smoke")
    assert "| claim | verdict | number |" in (finished / "README.md").read_text()
    record = json.loads((finished / "docs/images/gallery.json").read_text())["smoke"]
    assert all((finished / "docs/images" / name).stat().st_size > 10_000 for name in record["pictures"])


@pytest.mark.slow
def test_one_flipped_bit_of_any_file_is_found(finished):
    """In every file of the finished study, after all that was made again in it."""
    assert snakemake(finished).returncode == 0
    root, draw = finished / "results" / "smoke", random.Random(21)
    assert verify(root).findings == ()
    for name in Folder(root).hashes:
        content = flip(root / name, draw)
        found = [str(finding) for finding in verify(root).findings]
        (root / name).write_bytes(content)
        assert any(name in line for line in found), name
    assert verify(root).findings == ()


def addresses(folder: Folder) -> list[str]:
    """Of every cell that results stand behind, of every point and of every claim, as far as words tell it from others."""
    found = [
        claim["id"] for claim in json.loads((folder.path / "claims.json").read_text())["claims"] if claim["sources"]
    ]
    for file in sorted((folder.path / "tables").glob("*.json")):
        for n, table in enumerate(json.loads(file.read_text())["displayed"], 1):
            for row in (row for row in table["rows"] if row["sources"]):
                found += [f'{file.stem}["{row["cells"][0]}", "{column}", #{n}]' for column in table["columns"][1:]]
    for file in sorted((folder.path / "figures").glob("*.json")):
        for rows in ((json.loads(file.read_text())["spec"] or {}).get("datasets") or {}).values():
            for row in rows:
                words = (
                    f'"{value}"'
                    for key, value in row.items()
                    if key not in ("n", "interval") and type(value) in (str, int)
                )
                found.append(f"figures/{file.stem}[{', '.join(words)}]")
    return list(dict.fromkeys(found))


def random_cells(folder: Folder, count: int, seed: int) -> dict[str, Cell]:
    """Some of them by their addresses, without times and without those that several numbers share."""
    chosen: dict[str, Cell] = {}
    for address in random.Random(seed).sample(todo := addresses(folder), len(todo)):
        try:
            cell = find(folder, address)
        except AuditError:
            continue
        if cell.sources and not cell.timed:
            chosen[address] = cell
        if len(chosen) == count:
            break
    return chosen


@pytest.mark.slow
def test_the_last_command_of_a_chain_gives_the_same_number_in_a_clean_folder(finished, tmp_path):
    """The chains of 20 random cells lead to the data; each one's last command is run, in a folder of its own (three of
    them where CI is set)."""
    folder = Folder(finished / "results" / "smoke")
    cells = random_cells(folder, 20, seed=21)
    assert len(cells) == 20
    tried: dict[str, list[str]] = {}  # by the last command's target
    for address, cell in cells.items():
        lines = chain(folder, cell).splitlines()
        assert lines[0] == f"number    {cell.shown}" and any(line.startswith("← tokenizer") for line in lines), address
        command, _, target = lines[-1].strip().rpartition(" -- ")
        assert command == "envs/run snakemake --cores all --config study=smoke"
        tried.setdefault(target, []).append(address)
    assert len(tried) > 10
    if os.environ.get("CI"):  # each is most of a study again
        tried = dict([*tried.items()][:3])
    for target, addresses_of_it in tried.items():
        clean = tmp_path / re.sub(r"\W+", "-", target)
        clean.mkdir()
        done = snakemake(clean, target)
        assert done.returncode == 0, done.stderr[-2000:]
        for address in addresses_of_it:
            assert find(Folder(clean / "results" / "smoke"), address).shown == cells[address].shown, address
