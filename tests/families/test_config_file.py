"""config.json in both forms, and what this project itself makes of it when it reads it again."""

from __future__ import annotations

import json
import math

import pytest
from tiny import CONTEXT, SUPPORTED, VOCABULARY, publish, rope, shape, stock_config

from yarnlab.checkpoints import adopt_published, check_weights, link_weights
from yarnlab.checkpoints import stock_config as translated
from yarnlab.families.config import is_own_type, parameters
from yarnlab.families.config_file import UNSCALED, in_every_form
from yarnlab.families.parts import UnsupportedModel
from yarnlab.hub.errors import HubError
from yarnlab.hub.published import translate_config
from yarnlab.modeling import RopeMismatch, check_can_be_saved, load_model
from yarnlab.rope import METHODS, make_rope

SHAPE = {"original_context": 128, "head_dim": 16, "base": 500_000.0}
FACTORS = tuple(1.0 + pair for pair in range(8))
ROPES = {
    "none": make_rope("none", **SHAPE),
    "pi": make_rope("pi", scale=4, **SHAPE),
    "ntk-aware": make_rope("ntk-aware", scale=4, **SHAPE),
    "ntk-aware theta": make_rope("ntk-aware", scale=4, theta=2e6, **SHAPE),
    "ntk-by-parts": make_rope("ntk-by-parts", scale=4, **SHAPE),
    "ntk-by-parts rotations": make_rope("ntk-by-parts", scale=4, ramp="rotations", **SHAPE),
    "yarn": make_rope("yarn", scale=4, **SHAPE),
    "yarn rotations": make_rope("yarn", scale=4, ramp="rotations", **SHAPE),
    "yarn without truncation": make_rope("yarn", scale=4, truncate=False, temperature={"slope": 0.07}, **SHAPE),
    "temperature": make_rope("temperature", scale=4, **SHAPE),
    "llama3": make_rope("llama3", scale=4, **SHAPE),
    "longrope": make_rope(
        "longrope", scale=4, short_factor=FACTORS, long_factor=tuple(2 * f for f in FACTORS), **SHAPE
    ),
    "dynamic-ntk": make_rope("dynamic-ntk", scale=4, **SHAPE),
    "dynamic-pi": make_rope("dynamic-pi", scale=4, **SHAPE),
    "dynamic-yarn": make_rope("dynamic-yarn", scale=4, **SHAPE),
}


def written(name: str) -> dict:
    """config.json of a Llama with this rope."""
    made = {"model_type": "llama", "hidden_size": 64, "num_attention_heads": 4, "max_position_embeddings": 512}
    return in_every_form({**made, "rope_parameters": parameters(ROPES[name]), "dtype": "float32"})


def test_every_method_is_here():
    assert {each.method for each in ROPES.values()} == METHODS.keys()


@pytest.mark.parametrize("name", ROPES)
def test_the_older_keys_say_what_rope_parameters_says(name):
    found = written(name)
    block = found["rope_parameters"]
    assert found["rope_theta"] == block["rope_theta"] and found["head_dim"] == 16 and found["torch_dtype"] == "float32"
    if block["rope_type"] == "default":
        assert found["rope_scaling"] is None
        return
    older = found["rope_scaling"]
    assert older["type"] == older["rope_type"] == block["rope_type"]
    assert {**older, "rope_theta": block["rope_theta"]} == {**block, "type": block["rope_type"]}


@pytest.mark.parametrize("name", ROPES)
def test_vllm_multiplies_by_the_same_factor(name):
    """As its sources read the block: longrope by *_mscale, yarn by attention_factor or, before, by its own times
    attn_factor."""
    block, factor = written(name)["rope_parameters"], ROPES[name].attention_factor
    if block["rope_type"] == "longrope":
        assert block["short_mscale"] == block["long_mscale"] == factor
    elif block["rope_type"] == "yarn":
        assert block["attention_factor"] == factor
        usual = 0.1 * math.log(block["factor"]) + 1
        assert usual * block.get("attn_factor", 1.0) == pytest.approx(factor, rel=1e-12)
    else:
        assert is_own_type(ROPES[name]) or factor == 1


@pytest.mark.parametrize("name", ["longrope", "temperature", "llama3"])
def test_the_original_context_is_where_older_readers_look(name):
    assert written(name)["original_max_position_embeddings"] == 128


def test_a_family_with_names_of_its_own_has_them():
    block = {"rope_type": "default", "rope_theta": 7e4, "partial_rotary_factor": 0.5}
    found = in_every_form({"model_type": "gpt_neox", "rope_parameters": block})
    assert found["rotary_emb_base"] == found["rope_theta"] == 7e4
    assert found["rotary_pct"] == found["partial_rotary_factor"] == 0.5


def test_a_config_without_a_rope_is_left_alone():
    assert in_every_form({"model_type": "gpt2", "n_embd": 8}) == {"model_type": "gpt2", "n_embd": 8}


def test_phi3_of_version_4_gets_its_three_fields_or_refuses():
    """Its class takes no fourth field, and multiplies by √(1 + ln s / ln L)."""
    made = {"model_type": "phi3", "max_position_embeddings": 512, "hidden_size": 64, "num_attention_heads": 4}
    usual = ROPES["longrope"].to_hf()
    assert in_every_form({**made, "rope_parameters": usual})["rope_scaling"].keys() == {
        "type", "short_factor", "long_factor",
    }  # fmt: skip
    other = ROPES["yarn"].as_factors()
    assert len(in_every_form({**made, "rope_parameters": other})["rope_scaling"]) > 3


@pytest.mark.parametrize("name", ["none", "yarn"])
def test_a_class_that_scales_nothing_gets_no_base_to_compute_with(name):
    found = in_every_form({"model_type": "nemotron", "rope_parameters": parameters(ROPES[name])})
    assert found["rope_theta"] == (500_000.0 if name == "none" else None)
    assert found.get("rope_scaling") is None
    assert translate_config(found)["rope_parameters"]["rope_theta"] == 500_000.0


@pytest.mark.parametrize("name", ROPES)
def test_an_export_is_read_again_here(name):
    """Both forms are seen as agreeing, and give the block that was written."""
    found = written(name)
    assert translate_config(found)["rope_parameters"] == found["rope_parameters"]
    for key, value in (("rope_theta", 9.0), ("rope_scaling", {"rope_type": "yarn", "factor": 99.0})):
        with pytest.raises(HubError, match="rope_parameters"):
            translate_config({**found, key: value})


@pytest.mark.parametrize("name", [name for name in ROPES if not is_own_type(ROPES[name])])
def test_the_older_form_alone_is_read_as_the_same(name):
    found = written(name)
    block = found.pop("rope_parameters")
    read = translate_config(found)["rope_parameters"]
    assert read == {key: value for key, value in block.items() if key in read}
    assert block.keys() - read.keys() <= {"short_mscale", "long_mscale", "attn_factor"}


def test_names_of_the_factor_that_contradict_it_are_refused():
    found = written("temperature")
    del found["rope_parameters"]
    found["rope_scaling"]["short_mscale"] = 9.0
    with pytest.raises(HubError, match="short_mscale"):
        translate_config(found)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    root = tmp_path_factory.mktemp("llama")
    asset = publish(root / "asset", stock_config("llama"))
    declared = shape(stock_config("llama"))
    adopt_published(asset, declared, VOCABULARY, rope(declared, "none"), root / "base", drop_sliding_window=False)
    return root / "base", declared


@pytest.mark.parametrize("method", ["dynamic-pi", "dynamic-yarn", "dynamic-ntk"])
def test_a_dynamic_rope_is_named_and_loads_here(base, tmp_path, method):
    """And goes on to other ropes: what it said of its method is gone from the child's config."""
    folder, declared = base
    dynamic = rope(declared, method, 4)
    link_weights(folder, dynamic, tmp_path / "dynamic")
    config = json.loads((tmp_path / "dynamic" / "config.json").read_text())
    expected = "dynamic" if method == "dynamic-ntk" else method
    assert config["rope_parameters"]["rope_type"] == config["rope_scaling"]["rope_type"] == expected
    assert config["max_position_embeddings"] == CONTEXT  # stock dynamic types scale by l / this
    load_model(tmp_path / "dynamic", dynamic)
    with pytest.raises(RopeMismatch):
        load_model(tmp_path / "dynamic", rope(declared, "none"))
    link_weights(tmp_path / "dynamic", rope(declared, "yarn", 4), tmp_path / "yarn")
    link_weights(folder, rope(declared, "yarn", 4), tmp_path / "directly")
    one, two = (json.loads((tmp_path / name / "config.json").read_text()) for name in ("yarn", "directly"))
    assert one == two


def test_what_was_written_before_such_ropes_had_a_name_still_loads(base):
    folder, declared = base
    load_model(folder, rope(declared, "dynamic-yarn", 4))


def test_a_config_of_one_form_only_still_loads(base, tmp_path):
    """Results from before the older keys were written."""
    folder, declared = base
    yarn = rope(declared, "yarn", 4)
    link_weights(folder, yarn, tmp_path / "yarn")
    file = tmp_path / "yarn" / "config.json"
    config = json.loads(file.read_text())
    older = ("rope_scaling", "rope_theta", "torch_dtype")
    file.write_text(json.dumps({key: value for key, value in config.items() if key not in older}))
    load_model(tmp_path / "yarn", yarn)


def test_a_rope_that_depends_on_the_length_is_compared_beyond_the_window(tmp_path):
    """`dynamic` of factor 2 is plain RoPE within the window, and neither `none` nor `dynamic-ntk` beyond it."""
    config = stock_config("llama")
    config.rope_parameters = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}
    asset, declared = publish(tmp_path / "asset", config), shape(config)
    for method in ("none", "dynamic-ntk"):
        with pytest.raises(RopeMismatch):
            adopt_published(
                asset, declared, VOCABULARY, rope(declared, method), tmp_path / "base", drop_sliding_window=False
            )


def test_a_dynamic_rope_without_a_stock_type_is_not_trained(base):
    from transformers import AutoConfig

    folder, declared = base
    with pytest.raises(RopeMismatch, match="can't be saved"):
        check_can_be_saved(AutoConfig.from_pretrained(folder), rope(declared, "dynamic-yarn", 4), where="x")


def test_a_family_whose_config_takes_no_such_type_says_so(tmp_path):
    config = stock_config("phi3")
    asset, declared = publish(tmp_path / "asset", config), shape(config)
    adopt_published(asset, declared, VOCABULARY, rope(declared, "none"), tmp_path / "base", drop_sliding_window=False)
    with pytest.raises(UnsupportedModel, match="refuses a rope of method dynamic-yarn"):
        link_weights(tmp_path / "base", rope(declared, "dynamic-yarn", 4), tmp_path / "dynamic")


@pytest.mark.slow
@pytest.mark.parametrize("name", SUPPORTED)
def test_every_family_reads_one_rope_from_both_forms(name, tmp_path):
    """And is adopted again from its own export."""
    from yarnlab.families.survey import declared_rope

    config = stock_config(name)
    published, declared = publish(tmp_path / "asset", config), shape(config)
    own = declared_rope(config)
    adopt_published(published, declared, VOCABULARY, own, tmp_path / "base", drop_sliding_window=False)
    yarn = rope(
        declared, "yarn", 4, temperature={"factor": 1.0} if config.model_type == "deepseek_v3" else {"slope": 0.1}
    )
    link_weights(tmp_path / "base", yarn, tmp_path / "yarn")
    exported = json.loads((tmp_path / "yarn" / "config.json").read_text())
    if config.model_type in UNSCALED:
        assert exported["rope_theta"] is None and "rope_scaling" not in exported
    else:
        assert exported["rope_theta"] == declared.rope_theta and exported["rope_scaling"]
    load_model(tmp_path / "yarn", yarn)
    again = translated(translate_config(exported), (), tmp_path / "yarn")
    check_weights(tmp_path / "yarn", again)
    adopt_published(tmp_path / "yarn", declared, VOCABULARY, yarn, tmp_path / "again", drop_sliding_window=False)
    assert json.loads((tmp_path / "again" / "config.json").read_text()) == exported
