"""A small study on disk with its tracking files, and a migrated MLflow database to publish it to."""

import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import ViewType

from yarnlab.provenance import write_record
from yarnlab.tracking import publication, records
from yarnlab.tracking.executions import start_execution
from yarnlab.tracking.store import initialise, tracking_uri


@dataclass
class StudyOnDisk:
    """The stages of results/micro as they write themselves."""

    directory: Path

    def start(self, name: str = "base", **changes: Any) -> str:
        record: dict[str, Any] = {
            "stage": "train",
            "name": name,
            "study": "micro",
            "study_sha256": "5" * 64,
            "spec": {"rope": {"method": "yarn", "scale": 16}, "lengths": [128, 256]},
            "tags": {"model": name, "arm": name, "method": "yarn", "scale": "16", "parent": "root"},
            "manifest": f"models/{name}/manifest.json",
            "metrics_file": f"training/{name}.jsonl",
        }
        return records.record_start(self.directory, **(record | changes))

    def step(self, step: int, name: str = "base", **values: Any) -> None:
        line = {
            "step": step,
            "phase": "text",
            "loss": 1 / step,
            "answer_loss": None,
            "seconds": 0.5 * step,
        } | values
        self.write_metrics(json.dumps(line) + "\n", name)

    def write_metrics(self, text: str, name: str = "base") -> None:
        path = self.directory / "training" / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a") as file:
            file.write(text)

    def end(self, name: str = "base", *, error: str | None = None, **manifest: Any) -> None:
        if error is None:
            self.write_manifest(f"models/{name}/manifest.json", **manifest)
            config = {"architectures": ["LlamaForCausalLM"]}
            (self.directory / "models" / name / "config.json").write_text(json.dumps(config))
        records.record_end(self.directory, "train", name, error=error)

    def evaluate(self, kind: str, metrics: dict[str, float], name: str = "base", **manifest: Any) -> str:
        """One evaluation from start to end; its settings decide whether it is another execution."""
        spec = {"architecture": {"original_context": 64}, "rope": {"scale": 4}, "evaluation": {"lengths": [64, 256]}}
        path = f"evaluations/{kind}/{name}.manifest.json"
        tags = {"model": name, "arm": name, "method": "yarn", "scale": "4.0"}
        run = self.start(name, stage=kind, spec=spec, manifest=path, metrics_file=None, tags=tags)
        self.write_manifest(path, metrics=metrics, **manifest)
        records.record_end(self.directory, kind, name)
        return run

    def execute(self, started: str | None = None) -> None:
        """An execution of the study that started then, or with this process."""
        start_execution(self.directory, os.getpid())
        if started:
            (file,) = (self.directory / "tracking" / "executions").glob(f"{date.today().year}*")
            execution = json.loads(file.read_text()) | {"id": started.replace(":", ""), "started": started}
            write_record(file.with_name(f"{execution['id']}.json"), execution)
            file.unlink()

    def write_manifest(self, path: str, **manifest: Any) -> None:
        file = self.directory / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"git": {"commit": "c0ffee", "dirty": False}} | manifest))


@dataclass
class Store:
    """What MLflow answers about the study's experiment."""

    uri: str

    @property
    def client(self) -> Any:
        from mlflow import MlflowClient

        return MlflowClient(self.uri)

    @property
    def experiment(self) -> Any:
        return self.client.get_experiment_by_name("yarnlab/micro")

    def runs(self) -> list[Any]:
        return list(self.client.search_runs([self.experiment.experiment_id])) if self.experiment else []

    def run(self, name: str = "base") -> Any:
        """The one run of that name."""
        (run,) = (r for r in self.runs() if r.info.run_name == name)
        return run

    def trash(self) -> list[str]:
        """The names of the runs that a page shows with the state *Deleted* alone."""
        found = self.client.search_runs([self.experiment.experiment_id], run_view_type=ViewType.DELETED_ONLY)
        return sorted(run.info.run_name for run in found)

    def models(self) -> dict[str, Any]:
        """By name, one for each."""
        found = self.client.search_logged_models([self.experiment.experiment_id])
        assert len({model.name for model in found}) == len(found)
        return {model.name: model for model in found}

    def curve(self, metric: str, name: str = "base") -> dict[int, float]:
        history = self.client.get_metric_history(self.run(name).info.run_id, metric)
        assert len({point.step for point in history}) == len(history)
        return {point.step: point.value for point in history}

    def artifacts(self, run: Any) -> Path:
        """The folder of the run's artifacts, beside the database: the dashboard is started with it."""
        scheme, _, place = run.info.artifact_uri.partition(":/")
        assert scheme == "mlflow-artifacts"
        return Path(self.uri.removeprefix("sqlite:///")).parent / "mlartifacts" / place

    def steps(self, metric: str = "loss") -> list[int]:
        return sorted(point.step for point in self.client.get_metric_history(self.run().info.run_id, metric))


def done(result: publication.PublishResult) -> tuple[int, int, str | None]:
    """Runs that a publication brought up to date, runs that it did not, and why."""
    return result.published, result.pending, result.warning


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database, made once by `initialise`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        results = tmp_path_factory.mktemp("results")
        initialise(results)
    return results / "mlflow.db"


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StudyOnDisk:
    """A study in a folder whose name needs care in a URI."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    directory = tmp_path / "my results" / "micro"
    directory.mkdir(parents=True)
    return StudyOnDisk(directory)


@pytest.fixture
def store(study: StudyOnDisk, migrated: Path) -> Store:
    shutil.copy(migrated, study.directory.parent / "mlflow.db")
    return Store(tracking_uri(study.directory.parent))


@pytest.fixture
def folder(tmp_path: Path, migrated: Path) -> Callable[[str], Path]:
    """A new folder with an empty database."""

    def make(name: str) -> Path:
        (tmp_path / name).mkdir()
        shutil.copy(migrated, tmp_path / name / "mlflow.db")
        return tmp_path / name

    return make


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A server that takes connections and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(16)
        yield int(server.getsockname()[1])


@pytest.fixture
def use_uri(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    return lambda uri: monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
