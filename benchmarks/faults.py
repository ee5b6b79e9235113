"""Signals at seeded moments of every kind of work in the smoke study, and the same command again until it ends.

    envs/run python benchmarks/faults.py --kills 100
    envs/run python benchmarks/faults.py --kills 3 --classes download conversion     # only so much of the study

A lap is the study in a fresh folder, with a stand-in for the hub to download a model from. Each signal (SIGKILL,
SIGTERM, SIGINT) goes to one job, to the coordinator's process group, as Ctrl-C does, or to the coordinator alone, half
of them at the very moment of a file operation (fault_probe/sitecustomize.py), half a random time after it. Then the
same command is given at once, while what the signal left alive may still be at work.

A signal is survived if, with the command given again, the lap ends and then: weights, data, evaluations, tables and
claims are those of an undisturbed run, bit for bit (but for times and memory); `yarnlab verify` finds nothing, so no
file is there that nobody owns; `yarnlab clean` finds nothing to remove; a dry run plans nothing; no process is left.
Lost are the bytes that a manifest vouched for when the signal came and that were made again all the same. Ends with
exit code 1 unless all were survived and none were lost. Linux only.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import hashlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[1]
REPO = "emozilla/NTK-Llama-2-7b-8k"  # of those that the stand-in has as .bin
PROBE = "YARNLAB_FAULTS"
LAP = 20  # signals in one lap
DELAY_S = 0.3  # the longest time between an operation and a signal that does not come with it
LONGEST_S = 1200.0  # of one attempt
SIGNALS = ("SIGKILL", "SIGTERM", "SIGINT")
TO = ("job", "group", "coordinator")
TIMED = ["seconds", "tokens_per_second", "mfu_causal", "mfu_palm", "peak_memory_gib", "run"]  # other in every run


@dataclass(frozen=True)
class Moment:
    """When a signal of one class may come.

    pattern: operations (event, path, yarnlab's verb); none: steps of a training, seen from outside. spread: how many of
    them may pass first. target: what has to be asked of the study for them to happen.
    """

    pattern: str
    spread: int
    target: str = "all"


_RESULTS = r"results/smoke/"
# In the order in which a study meets them.
CLASSES = {
    "download": Moment(r"^(open|os\.rename) \S*/assets/\S*(\.partial|model\S*\.bin) ", 5, "assets"),
    "conversion": Moment(r"^(open|os\.rename) \S*/assets/\S*(\.bin|\.safetensors|index\.json) ", 8, "assets"),
    "training": Moment("", 8, "models"),
    "checkpoint write": Moment(r"^(open|os\.mkdir) \S*/state/\S*/\.checkpoint\.partial", 30, "models"),
    "rename": Moment(rf"^os\.rename \S*{_RESULTS}(models|data|state|training|tracking/rec|\.finished)", 40, "models"),
    "evaluation block": Moment(r"^(open|os\.rename) \S*/(state/\.evaluations|evaluations|nll)/", 40, "evaluations"),
    "MLflow mirror": Moment(r"^(sqlite3\.connect|open \S*/mlartifacts/|os\.rename \S*/tracking/).* mirror$", 15),
    "MLflow publish": Moment(r"^(sqlite3\.connect|open \S*/mlartifacts/|os\.rename \S*/tracking/).* publish$", 6),
    "analysis": Moment(rf"^os\.rename \S*{_RESULTS}(tables|figures|claims\.json|analysis\.json|study\.json)", 60),
    "report": Moment(rf"^(open|os\.rename) \S*{_RESULTS}(report\.html|ro-crate-metadata\.json)", 4),
}


@dataclass
class Fault:
    """One signal: its class, whom it meets; count: at which operation or step of those; delay: so many seconds later.

    lost: bytes; problems: what was not as without it; judged: whether it has come and its lap has ended.
    """

    number: int
    kind: str
    signal: str
    to: str
    count: int
    delay: float
    lost: int = 0
    problems: list[str] = field(default_factory=list)
    judged: bool = False

    def __str__(self) -> str:
        late = f", {self.delay:.2f} s later" if self.delay else ""
        return f"{self.signal} to the {self.to}, {self.kind} {self.count}{late}"


def main() -> None:
    options = read_arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # with what it has started, and a table
    folder = Path(options.folder or tempfile.mkdtemp(prefix="faults-"))
    folder.mkdir(parents=True, exist_ok=True)
    faults = draw(options.kills, options.seed, options.classes)
    try:
        with Campaign(folder, options.classes) as campaign:
            campaign.run(faults)
    finally:
        print(table(faults), flush=True)
    if all(fault.judged and not fault.problems and not fault.lost for fault in faults):
        if options.folder is None:
            shutil.rmtree(folder)
        return
    raise SystemExit(f"not all were survived; everything is kept in {folder}")


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="how many signals (100)")
    parser.add_argument("--seed", type=int, default=21, help="decides which, to whom and when (21)")
    parser.add_argument("--classes", nargs="+", choices=CLASSES, default=[*CLASSES], help="only these kinds of work")
    parser.add_argument("--folder", help="where to work, and what to keep; by default a temporary folder")
    return parser.parse_args()


def draw(kills: int, seed: int, classes: list[str]) -> list[Fault]:
    """Signals that meet every class and, as far as their number allows, each with every signal and target."""
    draws = random.Random(seed)
    pairs = {kind: [(number, to) for number in SIGNALS for to in TO] for kind in classes}
    for ways in pairs.values():
        draws.shuffle(ways)
    faults = []
    for number in range(kills):
        kind = classes[number % len(classes)]
        way, to = pairs[kind][number // len(classes) % len(pairs[kind])]
        delay = draws.choice((0.0, draws.uniform(0.0, DELAY_S)))
        faults.append(Fault(number, kind, way, to, draws.randint(1, CLASSES[kind].spread), delay))
    return faults


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


class Campaign:
    """with Campaign(folder, classes) as campaign: campaign.run(faults)."""

    def __init__(self, folder: Path, classes: list[str]) -> None:
        self.folder = folder.resolve()
        wanted = {CLASSES[kind].target for kind in classes}
        # The farthest of them; what lies behind it would only cost time.
        self.target = next(t for t in ("all", "evaluations", "models", "assets") if t in wanted)
        self.targets = ["assets", "models"] if self.target == "models" else [self.target]
        self._opened = contextlib.ExitStack()

    def __enter__(self) -> Campaign:
        sys.path.insert(0, str(ROOT / "tests"))
        from hub.mini_hub import MiniHub
        from standin.repositories import build

        studies = self.folder / "studies"
        shutil.copytree(ROOT / "config" / "studies", studies, dirs_exist_ok=True)
        for name in ("micro.yaml", "smoke.yaml"):  # a checkpoint after every step
            text = (studies / name).read_text(encoding="utf-8")
            (studies / name).write_text(text.replace("checkpoint_minutes: 2", "checkpoint_minutes: 0.0001"))
        self.study = studies / "smoke.yaml"
        self.study.rename(studies / "shipped.yaml")
        added = {"extends": "shipped.yaml", "study": "smoke", **published()}
        self.study.write_text(json.dumps(added), encoding="utf-8")
        build(self.folder / "hub", published())
        hub = self._opened.enter_context(MiniHub(self.folder / "hub"))
        commit = hub.commit("models", REPO)
        for number in (1, 2):
            hub.faults[f"/{REPO}/resolve/{commit}/pytorch_model-0000{number}-of-00002.bin"] = "slow"
        for server in hub._servers.values():
            server.handle_error = lambda *_: None  # a client that was killed in the middle of an answer
        self.hub = hub
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._alive():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._opened.close()

    def run(self, faults: list[Fault]) -> None:
        """All laps; notes in the faults what became of them."""
        say("an undisturbed run")
        undisturbed = self.folder / "undisturbed"
        if not (undisturbed / "done").exists():
            code, said = self._attempt(undisturbed, [])
            if code:
                raise SystemExit(f"the undisturbed run ended with {code}:\n{said}")
            (undisturbed / "done").touch()
        self.reference = content(undisturbed)
        left, lap = list(faults), 0
        while left:
            lap += 1
            mine, left = left[:LAP], left[LAP:]
            missed = self._lap(self.folder / f"lap-{lap}", mine)
            if missed and all(fault.count == 1 for fault in missed):
                say(f"never came: {'; '.join(map(str, missed))}")
                break
            for fault in missed:  # so late a moment did not come
                fault.count = (fault.count + 1) // 2
            left = missed + left

    def _lap(self, place: Path, faults: list[Fault]) -> list[Fault]:
        """One study from nothing to its end; returns the faults that found no moment."""
        say(f"{place.name}: {len(faults)} signals")
        todo = list(faults)
        came: list[Fault] = []
        finished: dict[str, tuple[str, int]] = {}
        began = time.monotonic()
        for attempt in range(1, 3 * len(faults) + 3):
            before, asked = len(came), len(self.hub.requests)
            fetched = (place / "results" / "smoke" / "assets" / "published" / "manifest.json").exists()
            code, said = self._attempt(place, todo, came)
            lost = made_again(place, finished)
            if fetched and (again := [one.path for one in self.hub.requests[asked:] if "/resolve/" in one.path]):
                came[-1].problems.append("fetched again what was there")
                say(f"  fetched again: {again}")
            for name, size in lost.items():
                came[-1].lost += size
                say(f"  made again: {name}, {size:,} bytes")
            if "Traceback (most recent call last)" in said and not came[before:]:
                came[-1].problems.append("the command that was given again shows a traceback")
                say(said)
            if code == 0:
                break
            if len(came) == before:
                came[-1].problems.append(f"the command given again ended with {code}")
                say(f"  attempt {attempt} ended with {code} without a signal:\n{said}")
                if came[-1].problems.count(came[-1].problems[-1]) > 2:
                    break
        problems = [f"the last attempt ended with {code}"] if code else self._problems(place)
        for problem in problems:
            say(f"  {problem}")
        for fault in came:
            fault.problems += problems
            fault.judged = True
        say(f"{place.name} ended after {time.monotonic() - began:.0f} s and {attempt} commands")
        if not problems and not any(fault.problems or fault.lost for fault in came):
            shutil.rmtree(place)
        return todo

    def _command(self, place: Path, *more: str) -> tuple[list[str], dict[str, str]]:
        command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(place)]
        environment = {key: value for key, value in os.environ.items() if "OFFLINE" not in key}
        path = [str(ROOT / "benchmarks" / "fault_probe"), environment.get("PYTHONPATH", "")]
        environment |= self.hub.env(self.folder / "home") | {
            PROBE: str(place),
            "PYTHONPATH": os.pathsep.join(filter(None, path)),
            "YARNLAB_HUB_LOCK": str(place / "hub.lock.yaml"),
            "YARNLAB_MACHINE": "default",  # the same kernels in every lap
        }
        return [*command, "--cores", "2", *more, *self.targets, "--config", f"study={self.study}"], environment

    def _attempt(self, place: Path, todo: list[Fault], came: list[Fault] | None = None) -> tuple[int, str]:
        """The command once, with all signals in wait whose moment has not come; (code, last words).

        A fault that has come moves from `todo` to `came`.
        """
        place.mkdir(exist_ok=True)
        for old in place.glob("fault-*"):
            old.unlink()
        command, environment = self._command(place)
        with (place / "output").open("wb") as output:
            process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=output, stderr=output, start_new_session=True
            )
        self._arm(place, process.pid, todo)
        steps, end = Steps(place), time.monotonic() + LONGEST_S
        while True:
            ended = process.poll() is not None  # asked before, so that its last moment is seen
            for fault in todo[:]:
                if (met := self._met(place, fault, steps)) and self._send(place, process.pid, fault, *met):
                    todo.remove(fault)
                    (came if came is not None else []).append(fault)
            if ended:
                break
            if time.monotonic() > end:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                return 124, f"did not end in {LONGEST_S:.0f} s: " + last_words(place)
            time.sleep(0.003)
        (place / "armed.json").unlink()
        return process.returncode, last_words(place)

    def _arm(self, place: Path, coordinator: int, faults: list[Fault]) -> None:
        """Tell the probe in every process what to wait for."""
        waiting = [
            {
                "number": fault.number,
                "pattern": CLASSES[fault.kind].pattern,
                "count": fault.count,
                "to": fault.to,
                "signal": signal.Signals[fault.signal],
                "delay": fault.delay,
            }
            for fault in faults
            if CLASSES[fault.kind].pattern
        ]
        new = place / "armed.new"
        new.write_text(json.dumps({"coordinator": coordinator, "faults": waiting}), encoding="utf-8")
        new.rename(place / "armed.json")

    def _met(self, place: Path, fault: Fault, steps: Steps) -> tuple[int, str] | None:
        """(process, what it does) if the fault's moment has come."""
        if not CLASSES[fault.kind].pattern:
            return (steps.job(), f"a step of {steps.model}") if steps.count() >= fault.count else None
        note = place / f"fault-{fault.number}.json"
        if not note.exists():
            return None
        met = json.loads(note.read_text(encoding="utf-8"))
        note.unlink()
        return met["pid"], met["operation"]

    def _send(self, place: Path, coordinator: int, fault: Fault, job: int, what: str) -> bool:
        """Send the signal, unless the probe has done that; false if whom it is for has just ended."""
        if fault.delay or not CLASSES[fault.kind].pattern:
            time.sleep(fault.delay)
            number = signal.Signals[fault.signal]
            try:
                if fault.to == "group":
                    os.killpg(coordinator, number)
                else:
                    process = psutil.Process(job if fault.to == "job" else coordinator)
                    if process.environ().get(PROBE) != str(place):
                        return False  # another process has the number now
                    process.send_signal(number)
            except (ProcessLookupError, psutil.Error):
                return False
        say(f"  {fault.number}: {fault} ({what.replace(f'{place}/', '')})")
        return True

    def _problems(self, place: Path) -> list[str]:
        """What at the end of a lap is not as it would be without any signal."""
        problems = []
        patience = time.monotonic() + 60
        while (alive := self._alive(place)) and time.monotonic() < patience:
            time.sleep(0.2)
        problems += [f"still there: {process.pid} {' '.join(process.cmdline()[:6])}" for process in alive]
        mine = content(place)
        for name in sorted(mine.keys() | self.reference.keys()):
            if mine.get(name) != self.reference.get(name):
                problems.append(f"{name} is another one than in the undisturbed run")
        dry, environment = self._command(place, "--dry-run")
        done = subprocess.run(dry, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        if "Nothing to be done" not in done.stdout + done.stderr:
            problems.append(f"a second run has something to do: {(done.stdout + done.stderr)[-1500:]}")
        problems += unowned(place, self.study, whole=self.target == "all")
        return problems

    def _alive(self, place: Path | None = None) -> list[psutil.Process]:
        """The processes of this campaign, or of one of its folders; each inherits the folder's name."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                where = process.environ().get(PROBE, "")
                mine = where == str(place) if place else where.startswith(f"{self.folder}/")
                if mine and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found


class Steps:
    """Steps of any training in a folder, counted from outside since now."""

    def __init__(self, place: Path) -> None:
        self._root = place / "results" / "smoke"
        self._seen: dict[Path, tuple[int, int]] = {}  # log: bytes, lines
        self._count, self.model = 0, ""
        self.count()
        self._count = 0

    def count(self) -> int:
        for log in self._root.glob("training/*.jsonl"):
            with contextlib.suppress(FileNotFoundError):
                size, (before, lines) = log.stat().st_size, self._seen.get(log, (0, 0))
                if size == before:
                    continue
                self._seen[log] = size, log.read_bytes().count(b"\n")
                if self._seen[log][1] > lines:
                    self._count += self._seen[log][1] - lines
                    self.model = log.stem
        return self._count

    def job(self) -> int:
        """The process that trains, by its lock."""
        with contextlib.suppress(OSError, ValueError):
            return int(json.loads((self._root / "state" / self.model / "lock").read_text())["pid"])
        return 2**22 + 1  # none has this number


def published() -> dict[str, Any]:
    """What the smoke study has not: a model on the hub, as .bin files, and so a download and a conversion.

    It has a tokenizer of its own, and so a corpus.
    """
    architecture = {
        "family": "llama", "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 64, "original_context": 128,
        "rope_theta": 10000.0, "tie_word_embeddings": False,
    }  # fmt: skip
    text = {"source": "python-packages", "tokenizer": "published"}
    origin = {"asset": "published", "vocab_size": 512, "architecture": architecture}
    return {
        "assets": {"published": {"type": "model", "repo": REPO, "revision": "main"}},
        "corpora": {"text": {**text, "packages": ["mpmath"], "min_tokens": 256, "documents": 2}},
        "models": {"published": {"hub": origin, "rope": {"method": "ntk-aware", "scale": 2, "theta": 20000.0}}},
        "evaluations": {"key_cache": {"corpus": "text", "models": ["published"], "length": 256, "documents": 2}},
    }


def last_words(place: Path) -> str:
    return (place / "output").read_text(encoding="utf-8", errors="replace")[-6000:]


def manifests(place: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    root = place / "results" / "smoke"
    for file in sorted([*root.glob("*/*/manifest.json"), *root.glob("evaluations/*/*.manifest.json")]):
        with contextlib.suppress(OSError, ValueError):
            yield file.relative_to(root).as_posix(), json.loads(file.read_text(encoding="utf-8"))


def made_again(place: Path, finished: dict[str, tuple[str, int]]) -> dict[str, int]:
    """The manifests that were there before with another end, and the bytes of what they name; `finished` is updated.

    One that is away for the moment is no loss yet: Snakemake removes it before it starts a job that may have finished.
    An asset's files are verified again and stay, so that its manifest may be a new one; what is fetched is counted
    apart.
    """
    lost = {}
    for name, manifest in manifests(place):
        if name.startswith("assets/"):
            continue
        size = sum(output["bytes"] for output in manifest["outputs"].values())
        if name in finished and finished[name][0] != manifest["ended"]:
            lost[name] = finished[name][1]
        finished[name] = (manifest["ended"], size)
    return lost


def content(place: Path) -> dict[str, str]:
    """What two runs of the study have in common: by name, the hash of a file or of what of it is no time or memory."""
    import numpy as np
    import pandas as pd

    root = place / "results" / "smoke"
    found = {}
    for name in ("models/*/*", "data/*/*", "assets/*/*", "evaluations/*/*", "nll/*/*", "tables/*.csv", "training/*",
                 "claims.json"):  # fmt: skip
        for file in sorted(root.glob(name)):
            if not file.is_file() or file.name.startswith((".", "README")) or file.name.endswith("manifest.json"):
                continue
            data = file.read_bytes()
            if file.suffix == ".csv":
                rows = [*csv.DictReader(io.StringIO(data.decode()))]
                data = json.dumps([{k: v for k, v in row.items() if k not in TIMED} for row in rows]).encode()
            elif file.suffix == ".parquet":
                columns = pd.read_parquet(file).to_dict("list").items()
                kept = {name: values for name, values in columns if name not in TIMED}
                data = json.dumps(kept, default=lambda array: array.tolist()).encode()
            elif file.suffix == ".jsonl":
                rows = [json.loads(line) for line in data.splitlines()]
                data = json.dumps([{k: v for k, v in row.items() if k not in TIMED} for row in rows]).encode()
            elif file.suffix == ".npz":
                arrays = np.load(io.BytesIO(data))
                data = b"".join(key.encode() + arrays[key].tobytes() for key in sorted(arrays.files))
            elif file.name == "claims.json":
                data = json.dumps([{**claim, "command": ""} for claim in json.loads(data)["claims"]]).encode()
            found[file.relative_to(root).as_posix()] = hashlib.sha256(data).hexdigest()
    return found


def unowned(place: Path, study: Path, *, whole: bool) -> list[str]:
    """What `yarnlab verify` and `yarnlab clean` name, drafts of dead processes among them however young they are."""
    from yarnlab.audit.verify import verify
    from yarnlab.stages import clean
    from yarnlab.stages.layout import Layout
    from yarnlab.study.load import load_study

    root = place / "results" / "smoke"
    clean.DRAFT_S = -1  # nobody is at work here any more
    left = clean.leftovers(Layout(root), load_study(study))
    found = [f"yarnlab clean: {one.path.relative_to(root)}: {one.why}" for one in left]
    # Beside the results: Snakemake's locks, and what is the campaign's own.
    found += [f"left behind: {lock.name}" for lock in (place / ".snakemake" / "locks").glob("*.lock")]
    found += [f"left behind: {file}" for file in (root / "state").rglob("*") if file.is_file() and whole]
    if whole:
        found += [f"yarnlab verify: {finding}" for finding in verify(root).findings]
    return found


def table(faults: list[Fault]) -> str:
    """Class by signal."""
    lines = ["", "| class | signal | tried | survived | bytes lost |", "|---|---|---|---|---|"]
    for kind in CLASSES:
        for number in SIGNALS:
            mine = [fault for fault in faults if (fault.kind, fault.signal) == (kind, number) and fault.judged]
            if mine:
                survived = sum(not fault.problems for fault in mine)
                lines.append(f"| {kind} | {number} | {len(mine)} | {survived} | {sum(f.lost for f in mine):,} |")
    judged = [fault for fault in faults if fault.judged]
    survived = sum(not fault.problems for fault in judged)
    lines.append(f"| all | | {len(judged)} | {survived} | {sum(fault.lost for fault in judged):,} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
