"""Checkpoints in MLflow: what they were made from, the best one, loading without a copy of weights."""

import json

import pytest

from yarnlab.tracking import publication

DATA = [{"name": "math", "digest": "e" * 64, "context": "training", "source": "sympy"}]


def child(study, name, parent, nll):
    study.start(name, tags={"model": name, "arm": name, "method": "yarn", "scale": "16", "parent": parent})
    study.end(name, datasets=DATA)
    study.evaluate("perplexity", {"nll/64": 9.0, "nll/1024": nll}, name, datasets=DATA)


def test_a_model_has_its_lineage_data_and_metrics(study, store):
    """base → s16 → s32: each run has its parent's model as input and its own as output; the page says so with links."""
    for name, parent, nll in (("base", "", 4.0), ("s16", "base", 3.0), ("s32", "s16", 3.5)):
        child(study, name, parent, nll)
    publication.publish(study.directory)
    models = store.models()
    for name, parent in (("s16", "base"), ("s32", "s16")):
        run = store.client.get_run(store.run(name).info.run_id)
        assert [model.model_id for model in run.inputs.model_inputs] == [models[parent].model_id]
        assert [model.model_id for model in run.outputs.model_outputs] == [models[name].model_id]
    note = models["s32"].tags["mlflow.note.content"]
    assert (
        note.index("[s16](#/experiments/") < note.index("[base](#/experiments/") < note.index("trained on math (sympy)")
    )
    assert {(m.key, m.step, m.value, m.dataset_name) for m in models["s16"].metrics} >= {
        ("perplexity/nll", 1024, 3.0, "math")
    }
    best = store.client.get_model_version_by_alias("yarnlab-micro", "best")
    assert best.source == f"models:/{models['s16'].model_id}"
    publication.publish(study.directory)
    assert store.client.get_model_version_by_alias("yarnlab-micro", "best").version == best.version
    child(study, "s64", "s32", 2.0)
    publication.publish(study.directory)
    now_best = store.client.get_model_version_by_alias("yarnlab-micro", "best")
    assert now_best.source == f"models:/{store.models()['s64'].model_id}"


def test_a_model_is_registered_once(study, store, use_uri):
    """A version that a server made long after its client had asked again goes, whichever of the two has the alias."""
    child(study, "base", "", 4.0)
    publication.publish(study.directory)
    use_uri(store.uri)  # which registering looks at, not at the client's
    for late_has_alias in (False, True):
        source = store.client.get_model_version_by_alias("yarnlab-micro", "best").source
        late = store.client.create_model_version("yarnlab-micro", source).version
        if late_has_alias:
            store.client.set_registered_model_alias("yarnlab-micro", "best", late)
        publication.publish(study.directory)
        (version,) = store.client.search_model_versions("name = 'yarnlab-micro'")
        best = store.client.get_model_version_by_alias("yarnlab-micro", "best")
        assert (best.version, best.source) == (version.version, source)


@pytest.mark.slow
def test_mlflow_loads_a_model_from_where_its_weights_are(study, store, use_uri):
    """Tokenizer and description are artifacts; weights are not, and what is loaded is what lies in the study's folder."""
    import mlflow
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    study.start()
    study.end()
    shape = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 1, "num_hidden_layers": 1}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=4, max_position_embeddings=8, **shape))
    model.save_pretrained(study.directory / "models" / "base")
    words = Tokenizer(WordLevel({"a": 0, "b": 1}, unk_token="a"))
    PreTrainedTokenizerFast(tokenizer_object=words).save_pretrained(study.directory / "models" / "base")
    publication.publish(study.directory)
    (place,) = (study.directory.parent / "mlartifacts").rglob("MLmodel")
    assert not list(place.parent.rglob("*.safetensors"))
    loaded = mlflow.transformers.load_model(str(place.parent), return_type="components")
    assert (loaded["model"].lm_head.weight == model.lm_head.weight).all()
    assert loaded["tokenizer"]("b")["input_ids"] == [1]
    assert json.loads((study.directory / "models/base/config.json").read_text())["hidden_size"] == 8
