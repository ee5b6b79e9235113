"""The `yarnlab` command: one verb per stage, plus what people use by hand.

Each stage's verb takes the results folder of a study and the name of what to make. Snakemake passes the section of
the study and the code key; by hand they are taken from the study file.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from yarnlab.study.schema import Study

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

StudyDir = Annotated[Path, typer.Option("--study-dir", help="The study's results folder, results/<study>.")]
Spec = Annotated[str | None, typer.Option(help="The section of the study, as JSON; default: from the study file.")]
Execution = Annotated[str | None, typer.Option(help="How it is computed, as JSON; default: from the study file.")]
Code = Annotated[str | None, typer.Option(help="The stage's code key; default: computed.")]
Log = Annotated[Path | None, typer.Option(help="A log file that gets plain progress lines and errors.")]
StudyName = Annotated[str, typer.Argument(help="A study's name, or a study file.")]
Results = Annotated[Path, typer.Option(help="The folder of all studies' results.")]


def main() -> None:
    """Run a command; a user's mistake ends in one message, a bug in a traceback."""
    from yarnlab.errors import EXIT_INTERRUPTED, SHOWN, Interruption

    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        _log_error(traceback.format_exc())
        if isinstance(error, Interruption):
            print(error, file=sys.stderr)
            sys.exit(EXIT_INTERRUPTED)
        if isinstance(error, SHOWN):
            print(f"error: {error}", file=sys.stderr)
            sys.exit(1)
        raise


def _log_error(text: str) -> None:
    """Append to the file behind --log, so that the workflow's log holds the reason of a failure.

    Where it can't be written (a full disk), stderr alone says the reason.
    """
    arguments = sys.argv
    if "--log" in arguments[:-1]:
        log = Path(arguments[arguments.index("--log") + 1])
        with suppress(OSError):
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("a", encoding="utf-8") as file:
                file.write(text)


def _stage(
    stage: str,
    name: str,
    study_dir: Path,
    spec: str | None,
    code: str | None,
    log: Path | None,
    execution: str | None = "{}",
) -> None:
    from yarnlab.fingerprint import key
    from yarnlab.stages import STAGES, Layout
    from yarnlab.study.sections import execution as execution_of
    from yarnlab.study.sections import section

    if stage not in STAGES:
        raise typer.BadParameter(f"there is no stage {stage!r}; known: {', '.join(STAGES)}")

    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("", encoding="utf-8")
    given = json.loads(spec) if spec is not None else section(_study_of(study_dir), stage, name)
    how = json.loads(execution) if execution is not None else execution_of(_study_of(study_dir), stage, name)
    STAGES[stage](Layout(study_dir), name, given, code or key(stage, given), log, **how)


def _study_of(study_dir: Path) -> Study:
    return _study_named(study_dir.name)


def _run_command(study_dir: Path) -> str:
    """What runs the study, with the name or file that the workflow was given; by hand, with the folder's name."""
    chosen = os.environ.get("YARNLAB_STUDY", study_dir.name)
    return f"envs/run snakemake --cores all --config study={shlex.quote(chosen)}"


def _study_named(chosen: str) -> Study:
    """The study of this name, or in this file (ending in .yaml)."""
    from yarnlab.study.load import load_study

    return load_study(_study_file(chosen))


def _study_file(chosen: str) -> Path:
    from yarnlab.provenance import project_root

    return Path(chosen) if chosen.endswith(".yaml") else project_root() / "config" / "studies" / f"{chosen}.yaml"


@app.command()
def families(
    names: Annotated[list[str] | None, typer.Argument(help="Families to try; default: all.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="One JSON object a family.")] = False,
) -> None:
    """Try each model family of the installed transformers on a small random model: evaluated, extended, trained, or why
    not."""
    from dataclasses import asdict

    from yarnlab.families.survey import COLUMNS, survey
    from yarnlab.families.survey import families as known

    if not json_:
        print("\t".join(COLUMNS), flush=True)
    for fare in survey(names or known()):
        print(json.dumps(asdict(fare)) if json_ else "\t".join(fare.row), flush=True)


@app.command()
def asset(name: str, study_dir: StudyDir, spec: Spec = None, code: Code = None, log: Log = None) -> None:
    """Fetch one pinned repository of the hub and verify every byte."""
    _stage("asset", name, study_dir, spec, code, log)


@app.command()
def tokenizer(study_dir: StudyDir, spec: Spec = None, code: Code = None, log: Log = None) -> None:
    """Train the study's tokenizer."""
    _stage("tokenizer", "tokenizer", study_dir, spec, code, log)


@app.command()
def corpus(name: str, study_dir: StudyDir, spec: Spec = None, code: Code = None, log: Log = None) -> None:
    """Tokenise one corpus."""
    _stage("corpus", name, study_dir, spec, code, log)


@app.command()
def train(
    name: str,
    study_dir: StudyDir,
    spec: Spec = None,
    execution: Execution = None,
    code: Code = None,
    log: Log = None,
) -> None:
    """Pretrain or fine-tune one model; continues from the newest checkpoint of the same settings."""
    _stage("train", name, study_dir, spec, code, log, execution)


@app.command()
def evaluate(
    kind: Annotated[str, typer.Argument(help="An evaluation of the study: perplexity, zero_shot, passkey, …")],
    name: Annotated[str, typer.Argument(help="A model of the study.")],
    study_dir: StudyDir,
    spec: Spec = None,
    execution: Execution = None,
    code: Code = None,
    log: Log = None,
) -> None:
    """Run one evaluation of one model."""
    _stage(kind, name, study_dir, spec, code, log, execution)


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="The study's name; its file is config/studies/NAME.yaml.")],
    model: Annotated[str, typer.Option(help="A folder with the model, or owner/name on the hub.")],
    scale: Annotated[float, typer.Option(help="How many times its window the new one is.")],
    text: Annotated[list[str] | None, typer.Option(help="Files, folders of long text; default: PG19's books.")] = None,
    more_text: Annotated[list[str] | None, typer.Argument(metavar="[TEXT]...", help="More of it.")] = None,
    column: Annotated[str, typer.Option(help="The column of .jsonl and .parquet rows that holds the text.")] = "text",
    revision: Annotated[str, typer.Option(help="The branch, tag or commit of a repository.")] = "main",
    ignored_config: Annotated[list[str] | None, typer.Option(help="A key of config.json to leave out.")] = None,
    device: Annotated[str | None, typer.Option(help="h100, h200, a100, cpu; default: what is here.")] = None,
    hours: Annotated[float | None, typer.Option(help="About how long training may take.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a study of this name.")] = False,
) -> None:
    """Write a study that extends a model, from its own config.json, sized to this machine, with its cost."""
    from yarnlab.new.write import write_study
    from yarnlab.provenance import project_root

    print(
        write_study(
            name,
            project_root() / "config" / "studies",
            model=model,
            revision=revision,
            scale=scale,
            text=[*(text or ()), *(more_text or ())],
            column=column,
            ignored=ignored_config or (),
            device=device,
            hours=hours,
            force=force,
        )
    )


@app.command()
def check(file: Annotated[Path, typer.Argument(help="A study file, config/studies/NAME.yaml.")]) -> None:
    """Say whether a study file is sound; nothing is run."""
    from yarnlab.study.load import load_study

    study = load_study(file)
    print(f"{file}: sound; {len(study.instances())} models, {len(study.corpora)} corpora")


@app.command()
def schema(
    write: Annotated[bool, typer.Option(help="Write it to workflow/schemas/ and, as a page, to docs/.")] = False,
) -> None:
    """Print the JSON schema of study files: every key, its type, default and meaning."""
    from yarnlab.provenance import project_root
    from yarnlab.study.reference import schema_text, write_reference

    if write:
        print(*write_reference(project_root()), sep="\n")
    else:
        print(schema_text(), end="")


@app.command()
def plan(
    study: StudyName,
    device: Annotated[str | None, typer.Option(help="h100, h200, a100, …, or cpu (this machine).")] = None,
    mfu: Annotated[float, typer.Option(help="The share of the device's peak that is reached.")] = 0.4,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what a study takes before anything starts; fails if something of it cannot fit."""
    from yarnlab.plan import plan_study, render

    made = plan_study(_study_named(study), device, mfu)
    print(json.dumps(made.as_dict(), indent=1) if as_json else render(made))
    made.check()


@app.command()
def lock(
    study: StudyName,
    update: Annotated[bool, typer.Option(help="Also what is pinned already: follow branches that moved on.")] = False,
) -> None:
    """Pin every download of a study: commits, sizes and hashes, into config/hub.lock.yaml; record shapes of models."""
    from yarnlab.hub.lock import hub_assets, lock_file, read_lock
    from yarnlab.hub.pin import lock_assets
    from yarnlab.new.parent import record_architectures
    from yarnlab.study.architectures import architectures_file
    from yarnlab.study.read import read_study

    recorded = record_architectures(read_study(_study_file(study))[0])
    wanted = list(hub_assets(_study_named(study).assets).values())
    done = lock_assets(wanted, lock_file(), update=update)
    known = read_lock(lock_file())
    total = sum(known[asset.key].bytes for asset in wanted)
    for name in recorded:
        print(f"{architectures_file()}: the shape of {name}")
    print(f"{lock_file()}: {len(done)} assets pinned now, {len(wanted) - len(done)} before; {total / 1e9:,.1f} GB")


@app.command()
def machine(
    measure: Annotated[bool, typer.Option("--measure", help="Measure it anew.")] = False,
) -> None:
    """Say which number format and attention kernels are fastest on this machine's CPU, measured once."""
    from yarnlab.machine import record

    found = record.measure() if measure else record.this_machine()
    print(record.described(found))


@app.command()
def overlap(
    a: Annotated[str, typer.Argument(help="A corpus of the study.")],
    b: Annotated[str, typer.Argument(help="Another one of the same tokenizer.")],
    study_dir: StudyDir,
) -> None:
    """Say how much text two tokenised corpora share; writes overlap/A--B.json."""
    from yarnlab.corpus.overlap import WINDOW
    from yarnlab.corpus.overlap import overlap as compared
    from yarnlab.corpus.packages import CorpusError
    from yarnlab.corpus.tokens import TokenisedCorpus
    from yarnlab.provenance import project_path, sha256_of, write_record

    for name in (a, b):
        if not (study_dir / "data" / name / "documents.json").is_file():
            raise CorpusError(
                f"{study_dir}/data/{name} is not there yet: run `{_run_command(study_dir)} "
                f"-- {study_dir}/data/{name}/manifest.json`"
            )
    first, second = (TokenisedCorpus.open(study_dir / "data" / name) for name in (a, b))
    found = compared(first, second, label=f"{a}--{b}")
    for i, name in enumerate((a, b)):
        print(f"{name}: {found.tokens[i]:,} tokens in {found.blocks[i]:,} blocks")
    print(f"equal blocks: {found.equal_blocks:,}")
    for share, i, where in ((found.a_in_b, 0, f"{a} also in {b}"), (found.b_in_a, 1, f"{b} also in {a}")):
        print(f"stretches of {WINDOW} tokens of {where}: {100 * share:.1f} % (n = {found.drawn[i]:,} drawn)")
    manifests = (study_dir / "data" / name / "manifest.json" for name in (a, b))
    read = {project_path(path): sha256_of(path) for path in manifests if path.is_file()}
    write_record(study_dir / "overlap" / f"{a}--{b}.json", {**found.as_dict(), "inputs": read})


@app.command()
def describe(study: StudyName, study_dir: StudyDir) -> None:
    """Write study.json: the study's models and evaluations, for tables, claims and report."""
    from yarnlab.provenance import write_record
    from yarnlab.study.sections import canonical
    from yarnlab.study.summary import summarise

    write_record(study_dir / "study.json", json.loads(canonical(summarise(_study_named(study)))))


@app.command()
def analyse(study_dir: StudyDir) -> None:
    """Write every table, figure and claim of a study, of what is there; then `yarnlab report` writes the page."""
    from yarnlab.results.analyse import analyse as write_all

    print(write_all(study_dir, command=_run_command(study_dir)))


@app.command()
def table(name: str, study_dir: StudyDir) -> None:
    """Write one table as csv, md, tex and json."""
    from yarnlab.results.analyse import table_named, write_table
    from yarnlab.results.results import load

    wanted = table_named(name)
    write_table(load(study_dir), wanted, _run_command(study_dir))


@app.command()
def figure(name: str, study_dir: StudyDir) -> None:
    """Write one figure as html, svg, png and json."""
    from yarnlab.results.analyse import figure_named, write_figure
    from yarnlab.results.results import load

    wanted = figure_named(name)
    write_figure(load(study_dir), wanted, _run_command(study_dir))


@app.command()
def report(study_dir: StudyDir) -> None:
    """Write report.html from what `yarnlab analyse` has written."""
    from yarnlab.results.report.render import write_report

    print(write_report(study_dir, command=_run_command(study_dir)))


@app.command()
def crate(study_dir: StudyDir) -> None:
    """Write ro-crate-metadata.json: what the results are and what made them, for archives."""
    from yarnlab.results.crate import write_crate

    print(write_crate(study_dir))


@app.command()
def compare(
    a: Annotated[str, typer.Argument(help="A study's name, or the results folder of one (also of another commit).")],
    b: Annotated[str, typer.Argument(help="The other.")],
    output: Annotated[Path | None, typer.Option(help="A folder; default: comparisons/A--B beside B.")] = None,
    results: Results = Path("results"),
) -> None:
    """Set two studies' settings and results side by side: comparison.html, .md and .csv."""
    from yarnlab.results.compare import write_comparison

    def folder(chosen: str) -> Path:
        return Path(chosen) if "/" in chosen or (Path(chosen) / "study.json").is_file() else results / chosen

    for path in write_comparison(folder(a), folder(b), output):
        print(path)


@app.command()
def clean(
    study: StudyName,
    results: Results = Path("results"),
    yes: Annotated[bool, typer.Option("--yes", help="Remove it without asking.")] = False,
) -> None:
    """Say what of a study's results nothing needs any more, and its size; remove it if told to."""
    from yarnlab.stages.clean import leftovers, remove
    from yarnlab.stages.layout import Layout

    chosen = _study_named(study)
    layout = Layout(results / chosen.study)
    found = leftovers(layout, chosen)
    for one in found:
        print(f"{one.bytes / 1e9:8.3f} GB  {one.path}: {one.why}")
    total = f"{sum(one.bytes for one in found) / 1e9:.3g} GB"
    if not found:
        print(f"{results / chosen.study}: everything there is needed")
    elif yes or typer.confirm(f"Remove all of these, {total}?"):
        needless = {one.path for one in leftovers(layout, chosen)}  # a run may have begun while the question stood
        for one in found:
            if one.path not in needless or not remove(one):
                print(f"{one.path}: in use or gone, left as it is")


@app.command()
def verify(
    study: Annotated[str, typer.Argument(help="A study's name, or its results folder.")],
    results: Results = Path("results"),
    readme: Annotated[Path, typer.Option(help="The page whose block of results is checked too.")] = Path("README.md"),
) -> None:
    """Re-hash all results of a study and name what is not as its record says; exit with 1 if there is anything."""
    from yarnlab.audit.folder import study_folder
    from yarnlab.audit.verify import verify as audited

    folder = study_folder(study, results)
    audit = audited(folder, readme)
    for finding in audit.findings:
        print(finding, file=sys.stderr)
    print(f"{folder}: {'sound' if not audit.findings else f'{len(audit.findings)} found'}: {audit.counts}")
    if audit.findings:
        raise typer.Exit(1)


@app.command()
def why(
    study: Annotated[str, typer.Argument(help="A study's name, or its results folder.")],
    cell: Annotated[str, typer.Argument(help="table_2[yarn-s16, 2048], figure_1[yarn-s16, 512], a claim's id, …")],
    results: Results = Path("results"),
) -> None:
    """Say how a number was made: the evaluation, model, data, code, settings, seed and machine behind it; and the
    commands that make it again, the last one from nothing."""
    from yarnlab.audit.cells import find
    from yarnlab.audit.chain import chain
    from yarnlab.audit.folder import Folder, study_folder

    folder = Folder(study_folder(study, results))
    print(chain(folder, find(folder, cell)))


@app.command()
def gallery(
    study_dir: StudyDir,
    images: Annotated[Path, typer.Option(help="Where the two pictures go.")] = Path("docs/images"),
    readme: Annotated[Path, typer.Option(help="The page whose block of results is written anew.")] = Path("README.md"),
) -> None:
    """Make the README's two pictures and its block of results from a study's report."""
    from yarnlab.results.report.gallery import write_gallery

    print(write_gallery(study_dir, images, readme))


@app.command("init-tracking")
def init_tracking(results: Results = Path("results")) -> None:
    """Create or upgrade the MLflow database, before anything uses it."""
    from yarnlab.tracking.store import initialise

    initialise(results)


@app.command()
def publish(study_dir: StudyDir) -> None:
    """Copy to MLflow whatever it does not have yet; a dead server costs a warning."""
    from yarnlab.tracking import publication

    result = publication.publish(study_dir)
    publication.write_runs(study_dir, result)
    if result.warning:
        print(f"warning: {result.warning}", file=sys.stderr)
    print(f"MLflow: {result.published} runs published, {result.pending} pending")


@app.command()
def mirror(study_dir: StudyDir, parent: Annotated[int, typer.Option(help="Stop when this process has ended.")]) -> None:
    """Keep MLflow up to date with a running study (started by the workflow)."""
    from yarnlab.tracking.mirror import follow

    follow(study_dir, parent_pid=parent)


@app.command()
def dashboard(results: Results = Path("results"), port: int = 5000) -> None:
    """Serve the MLflow dashboard on 127.0.0.1 and print links to the runs of every study."""
    from yarnlab.tracking.dashboard import serve

    serve(results, port=port)
