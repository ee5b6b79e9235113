"""Old configs give, in stock form, the frequencies of the code they were written for."""

from __future__ import annotations

import math

import pytest
from transformers import AutoConfig

from yarnlab.hub.api import HubError
from yarnlab.hub.published import translate_config
from yarnlab.modeling import RopeMismatch, check_config
from yarnlab.rope import make_rope

LLAMA = {"model_type": "llama", "hidden_size": 4096, "num_attention_heads": 32, "num_hidden_layers": 1,
         "vocab_size": 32000, "torch_dtype": "bfloat16"}  # fmt: skip
YARN = {"type": "yarn", "original_max_position_embeddings": 4096, "finetuned": True}
MISTRAL = {**LLAMA, "model_type": "mistral", "num_key_value_heads": 8, "rope_theta": 10000.0}
# The published config.json files (paper_spec §5), and what each must compute.
PUBLISHED = {
    "Yarn-Llama-2-7b-64k": ({**LLAMA, "rope_scaling": {**YARN, "factor": 16.0}, "auto_map": {"AutoModel": "m.M"}},
                            ("yarn", 16, 4096, {})),
    "Yarn-Llama-2-7b-128k": ({**LLAMA, "rope_scaling": {**YARN, "factor": 32.0}}, ("yarn", 32, 4096, {})),
    "Yarn-Mistral-7b-64k": (
        {**MISTRAL, "rope_scaling": {**YARN, "factor": 8.0, "original_max_position_embeddings": 8192}},
        ("yarn", 8, 8192, {"alpha": 2, "beta": 128, "temperature": {"slope": 0.07}}),
    ),
    "LLaMA-2-7B-32K": ({**LLAMA, "rope_scaling": {"factor": 8.0, "type": "linear"}}, ("pi", 8, 4096, {})),
    "CodeLlama-7b-hf": ({**LLAMA, "rope_theta": 1e6}, ("none", 1, 16384, {"base": 1e6})),
    "Llama-2-7b-hf": ({**LLAMA, "rope_scaling": None}, ("none", 1, 4096, {})),
    "NTK-Llama": ({**LLAMA, "rope_scaling": {"type": "ntk", "factor": 16.0}}, ("ntk-aware", 16, 4096, {})),
}  # fmt: skip


def config_of(published: dict):
    translated = translate_config(published)
    return AutoConfig.for_model(translated.pop("model_type"), **translated)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_frequencies_are_those_of_the_published_code(name):
    published, (method, scale, context, options) = PUBLISHED[name]
    rope = make_rope(method, scale=scale, original_context=context, head_dim=128, **options)
    config = config_of(published)
    check_config(config, rope, where=name)
    assert not hasattr(config, "auto_map")


def test_mistrals_hidden_constants_are_not_the_papers():
    published, _ = PUBLISHED["Yarn-Mistral-7b-64k"]
    papers = make_rope("yarn", scale=8, original_context=8192, head_dim=128)
    with pytest.raises(RopeMismatch):
        check_config(config_of(published), papers, where="mistral")
    assert config_of(published).rope_parameters["attention_factor"] == pytest.approx(0.07 * math.log(8) + 1)


def test_what_is_not_known_is_refused():
    with pytest.raises(HubError, match="'part-ntk' has no stock form"):
        translate_config({**LLAMA, "rope_scaling": {"type": "part-ntk", "factor": 2}})
    with pytest.raises(HubError, match="without which YaRN is undefined"):
        translate_config({**LLAMA, "rope_scaling": {"type": "yarn", "factor": 2}})
