"""Weights that exist as .bin only: plain tensors are converted once, anything else is refused."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from yarnlab.hub.api import HubError
from yarnlab.hub.convert import convert


def test_shards_become_safetensors_with_tied_weights_kept_apart(tmp_path):
    shared = torch.randn(6, 4)
    one, two = {"embed": shared, "head": shared, "view": shared.T}, {"norm": torch.ones(3, dtype=torch.bfloat16)}
    torch.save(one, tmp_path / "pytorch_model-00001-of-00002.bin")
    torch.save(two, tmp_path / "pytorch_model-00002-of-00002.bin")
    names = [f"pytorch_model-0000{i}-of-00002.bin" for i in (1, 2)]
    record = convert(tmp_path, names)
    assert set(record["sources"]) == set(names)
    made = load_file(tmp_path / "model-00001-of-00002.safetensors") | load_file(
        tmp_path / "model-00002-of-00002.safetensors"
    )
    for name, tensor in {**one, **two}.items():
        assert torch.equal(made[name], tensor) and made[name].dtype == tensor.dtype
    assert "model.safetensors.index.json" in record["files"]


def test_nothing_to_do_where_there_are_safetensors(tmp_path):
    assert convert(tmp_path, ["model.safetensors"]) == {}


class Code:
    def __reduce__(self):
        return print, ("run",)


@pytest.mark.parametrize("content", [{"a": Code()}, [torch.ones(2)], {"a": 1}])
def test_a_file_with_anything_but_tensors_is_refused(tmp_path, content, capfd):
    torch.save(content, tmp_path / "pytorch_model.bin")
    with pytest.raises(HubError, match="holds more than plain tensors"):
        convert(tmp_path, ["pytorch_model.bin"])
    assert "run" not in capfd.readouterr().out
    assert not (tmp_path / "model.safetensors").exists()
