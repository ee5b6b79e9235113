"""Old configs give, in stock form, the frequencies of the code they were written for."""

from __future__ import annotations

import pytest
from transformers import AutoConfig

from yarnlab.hub.errors import HubError
from yarnlab.hub.published import translate_config
from yarnlab.modeling import RopeMismatch, check_config
from yarnlab.rope import make_rope

SHAPE = {"hidden_size": 4096, "num_attention_heads": 32, "num_hidden_layers": 1, "num_key_value_heads": 8,
         "vocab_size": 32000, "torch_dtype": "bfloat16", "use_cache": True}  # fmt: skip
LLAMA = {**SHAPE, "model_type": "llama", "architectures": ["LlamaForCausalLM"]}
LLAMA_13B = {**LLAMA, "hidden_size": 5120, "num_attention_heads": 40, "num_key_value_heads": 40}
MISTRAL = {**SHAPE, "model_type": "mistral", "rope_theta": 10000.0}
TOGETHER = {"AutoModelForCausalLM": "modeling_llama_together_yarn.LlamaForCausalLM"}
OURS = {"AutoModelForCausalLM": "modeling_llama_yarn.LlamaForCausalLM"}
OURS_MISTRAL = {"AutoModelForCausalLM": "modeling_mistral_yarn.MistralForCausalLM"}


def yarn(factor: float, original: int, **more) -> dict:
    return {"factor": factor, "original_max_position_embeddings": original, "type": "yarn", **more}


# What the published config.json files say of the rope (read on the hub's pages, but where the name says otherwise), and
# what each model computes.
PUBLISHED = {
    "NousResearch/Yarn-Llama-2-7b-64k": (
        {**LLAMA, "auto_map": TOGETHER, "rope_scaling": yarn(16.0, 4096, finetuned=True)}, ("yarn", 16, 4096, {})),
    "NousResearch/Yarn-Llama-2-7b-128k": (
        {**LLAMA, "auto_map": TOGETHER, "rope_scaling": yarn(32.0, 4096, finetuned=True)}, ("yarn", 32, 4096, {})),
    "NousResearch/Yarn-Llama-2-13b-64k": (
        {**LLAMA_13B, "auto_map": TOGETHER, "rope_scaling": yarn(16.0, 4096, finetuned=True)}, ("yarn", 16, 4096, {})),
    "NousResearch/Yarn-Llama-2-13b-128k": (
        {**LLAMA_13B, "auto_map": TOGETHER, "rope_scaling": yarn(32.0, 4096, finetuned=True)}, ("yarn", 32, 4096, {})),
    "emozilla/Yarn-Llama-2-7b-8k, as finetune.py saves it": (
        {**LLAMA, "rope_scaling": yarn(2.0, 4096), "rope_theta": 10000.0}, ("yarn", 2, 4096, {})),
    "emozilla/NTK-Llama-2-7b-8k, as its file's size allows": (
        {**LLAMA, "rope_scaling": None, "rope_theta": 20000.0}, ("ntk-aware", 2, 4096, {"theta": 20000.0})),
    "the same, as finetune.py saves it": (
        {**LLAMA, "rope_theta": 20000.0,
         "rope_scaling": {"type": "ntk", "factor": 1.0, "original_max_position_embeddings": 4096}},
        ("ntk-aware", 2, 4096, {"theta": 20000.0})),
    "emozilla/Linear-Llama-7b-32k, as finetune.py saves it": (
        {**LLAMA, "rope_scaling": {"type": "linear", "factor": 16.0, "original_max_position_embeddings": 2048}},
        ("pi", 16, 2048, {})),
    "emozilla/Yarn-Llama-7b-32k": (
        {**LLAMA, "auto_map": OURS, "rope_scaling": yarn(16.0, 2048), "rope_theta": 10000.0, "max_sequence_length": 2048},
        ("yarn", 16, 2048, {})),
    "NousResearch/Yarn-Mistral-7b-64k": (
        {**MISTRAL, "auto_map": OURS_MISTRAL, "rope_scaling": yarn(8.0, 8192, finetuned=True), "sliding_window": 65536},
        ("yarn", 8, 8192, {"alpha": 2, "beta": 128, "temperature": {"slope": 0.07}})),
    "NousResearch/Yarn-Mistral-7b-128k": (
        {**MISTRAL, "auto_map": OURS_MISTRAL, "rope_scaling": yarn(16.0, 8192, finetuned=True), "sliding_window": 131072,
         "max_sequence_length": 131072},
        ("yarn", 16, 8192, {"alpha": 2, "beta": 128, "temperature": {"slope": 0.07}})),
    "NousResearch/Yarn-Mistral-7b-128k, at first": (
        {**MISTRAL, "auto_map": OURS_MISTRAL, "rope_scaling": yarn(16.0, 8192), "sliding_window": 131072},
        ("yarn", 16, 8192, {"alpha": 2, "beta": 128, "temperature": {"slope": 0.07}})),
    "togethercomputer/LLaMA-2-7B-32K": (
        {**LLAMA, "auto_map": {"AutoModelForCausalLM": "modeling_flash_llama.LlamaForCausalLM"},
         "rope_scaling": {"factor": 8.0, "type": "linear"}}, ("pi", 8, 4096, {})),
    "conceptofmind/LLongMA-2-7b": (
        {**LLAMA, "rope_scaling": {"factor": 2.0, "type": "linear"}, "ntk_alpha": None, "part_ntk_scale": None,
         "position_interpolation_scale": 1, "transformer_engine": None, "use_xpos": False}, ("pi", 2, 4096, {})),
    "codellama/CodeLlama-7b-hf": ({**LLAMA, "rope_theta": 1000000}, ("none", 1, 16384, {"base": 1e6})),
    "amazon/MistralLite": (
        {**MISTRAL, "rope_theta": 1000000, "sliding_window": 16384}, ("none", 1, 16384, {"base": 1e6})),
    "microsoft/Phi-3-mini-128k-instruct, at first": (
        {**LLAMA, "original_max_position_embeddings": 4096, "max_position_embeddings": 131072, "model_type": "phi3", "pad_token_id": 0,
         "rope_scaling": {"type": "su", "short_factor": [1.0] * 64, "long_factor": [2.0] * 64}},
        ("longrope", 32, 4096, {"short_factor": [1.0] * 64, "long_factor": [2.0] * 64})),
    "meta-llama/Llama-2-7b-hf": ({**LLAMA, "rope_scaling": None}, ("none", 1, 4096, {})),
    "NTK-aware of September 2023": (
        {**LLAMA, "rope_scaling": {"type": "ntk", "factor": 16.0}}, ("ntk-aware", 16, 4096, {})),
    "a checkpoint of today": (
        {**LLAMA, "rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}}, ("pi", 4, 4096, {})),
}  # fmt: skip

# float32 inv_freq and mscale of the official classes, D = 128, b = 10,000 (shared values of the official repository's
# LlamaYaRNScaledRotaryEmbedding at three settings; the Mistral class's mscale is 0.07·ln s + 1 and its ramp runs from
# pair 16 to 46, so these two are untouched and fully interpolated).
OFFICIAL = {
    "NousResearch/Yarn-Llama-2-7b-64k": (
        1.2772588722,
        {0: 1.0, 20: 0.0562341288, 21: 0.0469408594, 30: 0.0085268440, 33: 0.0046004355, 40: 0.0008817890,
         45: 0.00015177164, 46: 8.334509e-05, 63: 7.217387e-06},
    ),
    "NousResearch/Yarn-Llama-2-13b-64k": (1.2772588722, {20: 0.0562341288, 33: 0.0046004355, 46: 8.334509e-05}),
    "NousResearch/Yarn-Llama-2-13b-128k": (1.3465735903, {21: 0.0468823276, 45: 0.00010549981}),
    "NousResearch/Yarn-Llama-2-7b-128k": (
        1.3465735903, {21: 0.0468823276, 33: 0.0044651283, 45: 0.00010549981, 63: 3.6086935e-06}),
    "emozilla/Yarn-Llama-7b-32k": (1.2772588722, {20: 0.0477990098, 30: 0.0063342270, 40: 0.00031622784}),
    "NousResearch/Yarn-Mistral-7b-64k": (1.14556, {16: 0.1, 46: 1e4 ** (-92 / 128) / 8}),
    "NousResearch/Yarn-Mistral-7b-128k": (1.19408, {16: 0.1, 46: 1e4 ** (-92 / 128) / 16}),
}  # fmt: skip


def config_of(published: dict):
    translated = translate_config(published)
    return AutoConfig.for_model(translated.pop("model_type"), **translated)


def inv_freq_of(config):
    from yarnlab.families.config import stock_rotary

    rotary = stock_rotary(config)
    return rotary.inv_freq, rotary.attention_scaling


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_frequencies_are_the_declared_methods(name):
    published, (method, scale, context, options) = PUBLISHED[name]
    rope = make_rope(method, scale=scale, original_context=context, head_dim=128, **options)
    config = config_of(published)
    check_config(config, rope, where=name)
    assert str(config.dtype).endswith("bfloat16")
    assert not hasattr(config, "auto_map")


@pytest.mark.parametrize("name", OFFICIAL)
def test_the_frequencies_are_the_official_classes(name):
    published, _ = PUBLISHED[name]
    inv_freq, factor = inv_freq_of(config_of(published))
    mscale, expected = OFFICIAL[name]
    assert factor == pytest.approx(mscale, rel=1e-5)
    for pair, value in expected.items():
        assert inv_freq[pair].item() == pytest.approx(value, rel=2e-7 if pair != 46 else 2e-6), pair


def test_mistrals_hidden_constants_are_not_the_papers():
    published, _ = PUBLISHED["NousResearch/Yarn-Mistral-7b-64k"]
    papers = make_rope("yarn", scale=8, original_context=8192, head_dim=128)
    with pytest.raises(RopeMismatch):
        check_config(config_of(published), papers, where="mistral")


def test_the_yarn_mistrals_have_no_sliding_window_and_others_keep_theirs():
    windows = {name: config_of(PUBLISHED[name][0]).sliding_window for name in PUBLISHED if "istral" in name}
    assert windows == {
        "NousResearch/Yarn-Mistral-7b-64k": None,
        "NousResearch/Yarn-Mistral-7b-128k": None,
        "NousResearch/Yarn-Mistral-7b-128k, at first": None,
        "amazon/MistralLite": 16384,
    }


def test_a_yarn_block_of_todays_transformers_keeps_its_own_meaning():
    """Without the official code's marks, a Mistral with yarn has the paper's constants, as in stock transformers."""
    config = config_of({**MISTRAL, "rope_scaling": yarn(8.0, 8192) | {"beta_fast": 64.0}, "sliding_window": 4096})
    check_config(config, make_rope("yarn", scale=8, original_context=8192, head_dim=128, beta=64), where="stock")
    assert config.sliding_window == 4096


def test_the_official_classes_ignore_the_base():
    published = {**LLAMA, "rope_theta": 5e5, "rope_scaling": yarn(16.0, 4096, finetuned=True)}
    check_config(config_of(published), make_rope("yarn", scale=16, original_context=4096, head_dim=128), where="theta")


def test_other_families_keep_what_their_class_says():
    assert "rope_parameters" not in translate_config({"model_type": "gpt2", "n_embd": 8})
    translated = translate_config({"model_type": "qwen2", "rope_theta": 1e6})
    assert translated["rope_theta"] == 1e6 and "rope_parameters" not in translated
    rope = config_of({"model_type": "qwen2", "rope_theta": 1e6}).rope_parameters
    assert rope == {"rope_type": "default", "rope_theta": 1e6}


@pytest.mark.parametrize("written", [1000000, 1e6, "1000000", "1e6"])
@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_a_base_in_any_spelling_is_one_number(family, written):
    assert config_of({**LLAMA, "model_type": family, "rope_theta": written}).rope_parameters["rope_theta"] == 1e6
    block = {"type": "linear", "factor": 2, "rope_theta": written}
    assert config_of({**LLAMA, "model_type": family, "rope_scaling": block}).rope_parameters["rope_theta"] == 1e6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rope_theta": "many"}, r"x/y: `rope_theta` is 'many' and has to be a number above 0"),
        ({"rope_theta": 0}, r"x/y: `rope_theta` is 0"),
        ({"rope_theta": [1e4]}, r"x/y: `rope_theta` is \[10000.0\]"),
        ({"rope_scaling": "yarn"}, r"x/y: `rope_scaling` is 'yarn' and has to be a mapping"),
        ({"rope_parameters": ["default"]}, r"x/y: `rope_parameters` is \['default'\]"),
        (
            {"rope_scaling": {"type": "part-ntk", "factor": 2.0}},
            r"x/y: `rope_scaling.type: part-ntk` is not supported",
        ),
        ({"rope_scaling": {"type": "dynamic-yarn", "factor": 2.0}}, r"x/y: `rope_scaling.type: dynamic-yarn`"),
        (
            {"rope_scaling": {"type": "yarn", "factor": 2.0}},
            r"x/y: `rope_scaling.original_max_position_embeddings` is None",
        ),
        (
            {"rope_scaling": {"type": "dynamic", "factor": 2.0, "original_max_position_embeddings": 4096}},
            r"x/y: `rope_scaling.original_max_position_embeddings` is not known for type dynamic",
        ),
        ({"rope_scaling": {"type": "linear", "factor": "2"}}, r"x/y: `rope_scaling.factor` is '2'"),
        ({"rope_scaling": yarn(2.0, 4096, finetuned=True, alpha=3)}, r"x/y: `rope_scaling.alpha` is not known"),
        ({"part_ntk_scale": 4}, r"x/y: `part_ntk_scale: 4` has no stock form"),
        ({"quantization_config": {"bits": 4}}, r"x/y: `quantization_config` is set"),
        ({"model_type": None}, r"x/y: config.json has no `model_type`"),
    ],
)
def test_what_is_not_known_is_refused_by_repository_and_key(changes, message):
    with pytest.raises(HubError, match=message):
        translate_config({**LLAMA, "_name_or_path": "x/y", **changes})
