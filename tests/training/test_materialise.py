"""Models whose weights are read as shards: what no file holds is computed from the config, not left undefined."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_runs import parallel, phase

from yarnlab.training.objective import NotInForce, build_objective, materialise
from yarnlab.training.parallel import Group


def shards_compute_what_stock_does(folder: Path) -> None:
    """A tiny Gemma, which multiplies its embeddings by a buffer that is in no file."""
    from transformers import AutoConfig, AutoModelForCausalLM

    from yarnlab.modeling import meta_model, set_rope, use_fast_attention
    from yarnlab.rope import make_rope
    from yarnlab.study.training import Parallel
    from yarnlab.training.parallel import processes
    from yarnlab.training.shards import read_weights

    ways = Parallel.model_validate(parallel(1, "fsdp"))
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    shape |= {"num_key_value_heads": 2, "head_dim": 16, "vocab_size": 512, "max_position_embeddings": 128}
    with processes(ways) as group:
        stock = AutoModelForCausalLM.from_config(AutoConfig.for_model("gemma", pad_token_id=0, **shape)).eval()
        stock.save_pretrained(folder)
        ids = torch.arange(64)[None] * 7 % 512
        with torch.no_grad():
            expected = torch.nn.functional.cross_entropy(stock(ids).logits[0, :-1], ids[0, 1:], reduction="none")
        junk = [torch.full((64,), torch.nan) for _ in range(2000)]
        del junk  # what memory holds that is given out and not written
        model = meta_model(folder)
        assert all(parameter.is_meta for parameter in model.parameters())
        set_rope(model, make_rope("none", original_context=128, head_dim=16))
        objective = build_objective(model, phase(steps=1).model_copy(update={"parallel": ways}), group)
        materialise(objective, group)
        read_weights(model, folder)
        use_fast_attention(model)
        _, nll = objective(ids[:, :-1], ids[:, 1:], torch.ones(1, 63))
        assert (nll - expected).abs().max() < 1e-5


def test_a_buffer_that_no_file_holds_is_in_force_in_shards(job, tmp_path):
    job(shards_compute_what_stock_does, tmp_path)


def test_a_buffer_that_nothing_computes_is_refused(tiny_model):
    objective = build_objective(tiny_model, phase(steps=1), Group())
    tiny_model.register_buffer("scale", torch.ones(1, device="meta"), persistent=False)
    with pytest.raises(NotInForce, match="scale: no weights"):
        materialise(objective, Group())
