"""Initial weights that hold the beginnings of an induction circuit: a head that looks one token back, and one that
is inclined to copy.

In-context copying appears in training as a phase change that takes a small model most of a short study's budget; a
model of the paper's size has it long before its context is extended. `induction` builds the two heads in by hand and
leaves everything else random; training then goes on as usual and changes all of it. It is a head start for the *base*
model, the same for every arm made from it, and a study that uses it must say so: `initialisation: induction`.

Layer 0, head 0 attends to the previous token: every embedding gets a common direction u, which queries and keys read
into the fastest RoPE pairs, the query's turned back by one position. It writes what it sees, moved to another subspace.
Layer 1, head 0 compares the current token with what layer 0 wrote and writes the token that it finds: weak at first,
since RoPE turns most of the comparison away with the distance, and sharpened by training. A sharper start, with the
comparison in the slow pairs alone and half as strong again, learned more slowly in a trial of 260 steps.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from yarnlab.rope import Rope

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PAIRS = 8  # how many of the fastest RoPE pairs carry the position
PEAK = 32.0  # score of the previous position before the softmax's scaling
MATCH = 2.0  # weight of the match between the current and an earlier token


def build_induction_circuit(model: PreTrainedModel, rope: Rope, *, seed: int) -> None:
    """Change the embeddings and the first heads of layers 0 and 1 in place.

    Needs two layers and hidden_size >= 2·head_dim, for two disjoint subspaces.
    """
    generator = torch.Generator().manual_seed(2**32 + seed)  # another stream than the one that drew the weights
    width, head = model.config.hidden_size, rope.head_dim
    norm = model.config.initializer_range * math.sqrt(width)  # of a fresh embedding
    with torch.no_grad():
        common = torch.nn.functional.normalize(torch.randn(width, generator=generator), dim=0)
        model.model.embed_tokens.weight += norm * common
        # After the norm an embedding has length √width, half of its square along u.
        along = math.sqrt(width / 2)
        subspaces = _without(common, _orthonormal(width, 2 * head, generator))
        token, moved = subspaces[:head], subspaces[head:]
        copied = _without(common, _orthonormal(width, head, generator))

        first, second = (model.model.layers[i].self_attn for i in (0, 1))
        here, back = torch.zeros(head), torch.zeros(head)
        turn = rope.inv_freq()[:PAIRS]
        here[:PAIRS] = 1
        # Half-split layout: pair i is (i, i + head/2); this is `here` turned back by one position.
        back[:PAIRS], back[head // 2 : head // 2 + PAIRS] = torch.cos(turn), -torch.sin(turn)
        gain = math.sqrt(PEAK * 8 / PAIRS) / along
        first.q_proj.weight[:head] = gain * back[:, None] * common
        first.k_proj.weight[:head] = gain * here[:, None] * common
        first.v_proj.weight[:head] = token
        first.o_proj.weight[:, :head] = norm / along * moved.T  # written about as long as an embedding
        second.q_proj.weight[:head] = MATCH * token
        second.k_proj.weight[:head] = MATCH * moved
        second.v_proj.weight[:head] = copied
        second.o_proj.weight[:, :head] = norm / along * copied.T


def _orthonormal(width: int, rows: int, generator: torch.Generator) -> Tensor:
    """(rows, width), rows orthonormal."""
    return torch.linalg.qr(torch.randn(width, rows, generator=generator))[0].T


def _without(direction: Tensor, rows: Tensor) -> Tensor:
    """The rows without their part along `direction`."""
    return rows - (rows @ direction)[:, None] * direction
