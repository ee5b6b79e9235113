"""Checkpoints as MLflow's models: each with its run, its parent and its data, the best one under an alias.

A model's artifacts are its tokenizer and a description that names the checkpoint's folder: weights are never copied,
`mlflow.transformers.load_model` reads them where they are. Where the folder was moved, or is seen at another path, its
argument `base_model_path` says so.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Collection, Iterable
from pathlib import Path

from yarnlab.lazy import entities, mlflow
from yarnlab.provenance import read_json
from yarnlab.tracking.entities import StudyRun
from yarnlab.tracking.store import send_files

Models = dict[str, "entities.LoggedModel"]
"""{id of a run: its checkpoint}."""
BEST = "best"
"""The alias of a study's model with the lowest NLL at the longest length."""
_NLL = "perplexity/nll at longest"
_NOTE = "mlflow.note.content"


def models_of(client: mlflow.MlflowClient, experiment_id: str, runs: Collection[str]) -> Models:
    """{run: its checkpoint} of the runs with these ids, the one with the lowest NLL first.

    Of two checkpoints of a run, made because an answer came too late, one goes into MLflow's trash.
    """
    models: Models = {}
    order = [{"field_name": f"metrics.{_NLL}"}]
    found = client.search_logged_models([experiment_id], max_results=1000, order_by=order)
    for model in sorted(found, key=lambda each: str(each.status) != "READY"):
        run = str(model.source_run_id)
        if run in runs and models.setdefault(run, model) is not model:
            client.delete_logged_model(model.model_id)
    return models


def log_model(
    client: mlflow.MlflowClient, study_dir: Path, run: entities.Run, new: StudyRun, models: Models
) -> str | None:
    """Have the run's checkpoint in MLflow, once there is one, with its parent and the run's data; returns its id.

    models: those of the study by the ids of their runs, to which this one is added.
    """
    run_id, experiment = run.info.run_id, run.info.experiment_id
    parent = next((m for m in models.values() if new.model and m.name == new.tags.get("parent_model")), None)
    if new.datasets or parent:  # MLflow keeps once what is sent twice
        inputs = [entities.LoggedModelInput(parent.model_id)] if parent else []
        client.log_inputs(run_id, datasets=new.datasets, models=inputs)
    if not new.model:
        return None
    name = str(new.model["name"])
    if run_id not in models:
        tags = {"execution": new.model["run"], "path": f"models/{name}", _NOTE: _lineage(experiment, parent, new)}
        models[run_id] = client.create_logged_model(experiment, name, run_id, tags, new.model["params"], "checkpoint")
    model = models[run_id]
    if str(model.status) != "READY":
        with tempfile.TemporaryDirectory() as temporary:
            _describe(folder := Path(temporary), study_dir / "models" / name, model.model_id)
            files = [file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()]
            send_files(client, study_dir.parent, model.artifact_location, folder, files)
        models[run_id] = client.finalize_logged_model(model.model_id, "READY")
    if not (run.outputs and run.outputs.model_outputs):
        client.log_outputs(run_id, [entities.LoggedModelOutput(model.model_id, 0)])
    return str(model.model_id)


def _lineage(experiment_id: str, parent: entities.LoggedModel | None, new: StudyRun) -> str:
    """A model's description: what it was made from, with links."""
    data = ", ".join(f"{data['name']} ({data['source']})" for data in new.model.get("datasets", [])) or "nothing"
    if parent is None:
        return f"Trained on {data}."
    link = f"[{parent.name}](#/experiments/{experiment_id}/models/{parent.model_id})"
    earlier = parent.tags.get(_NOTE, "").partition("Made from ")[2].partition(";")[0]
    return f"Made from {link}{' ← ' + earlier if earlier else ''}; trained on {data}."


def register_best(client: mlflow.MlflowClient, study_dir: Path, models: Iterable[entities.LoggedModel]) -> None:
    """Have the alias `best` of the study's registered model name the first of `models` that has an NLL, once."""
    best = next((m for m in models if any(metric.key == _NLL for metric in m.metrics or [])), None)
    if best is None:
        return
    source, name = f"models:/{best.model_id}", f"yarnlab-{study_dir.resolve().name}"
    about = f"The study's models with the lowest {_NLL} tokens."
    found = client.search_registered_models(f"name = '{name}'")
    registered = found[0] if found else client.create_registered_model(name, description=about)
    versions = [version for version in client.search_model_versions(f"name = '{name}'") if version.source == source]
    versions = versions or [client.create_model_version(name, source, model_id=best.model_id)]
    kept, *late = sorted(versions, key=lambda version: int(version.version))
    for version in late:  # made because an answer came too late; the tag is what links a model's page to its versions
        links = [{"name": name, "version": int(kept.version)}]
        client.set_logged_model_tags(best.model_id, {"mlflow.modelVersions": json.dumps(links)})
        client.delete_model_version(name, version.version)
    if str(registered.aliases.get(BEST)) != str(kept.version):
        client.set_registered_model_alias(name, BEST, kept.version)


def _describe(folder: Path, checkpoint: Path, model_id: str) -> None:
    """Write what MLflow's transformers flavor loads: MLmodel, and the tokenizer as its component."""
    tokenizer = folder / "components" / "tokenizer"
    tokenizer.mkdir(parents=True)
    for file in checkpoint.glob("*token*.*"):
        shutil.copy(file, tokenizer)
    model = mlflow.models.Model(model_id=model_id)
    model.add_flavor(
        "transformers",
        framework="pt",
        task="text-generation",
        instance_type="TextGenerationPipeline",
        pipeline_model_type=read_json(checkpoint / "config.json").get("architectures", [""])[0],
        local_base_model_path=str(checkpoint.resolve()),
        components=["tokenizer"],
        tokenizer_type="PreTrainedTokenizerFast",
    )
    model.save(str(folder / "MLmodel"))
