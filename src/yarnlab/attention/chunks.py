"""Exact causal attention of long rows on CPUs: chunks of keys whose scores stay in a cache, in memory of seq_len.

The softmax of a chunk is one pass over its scores instead of torch's three, compiled by numba: torch has no operation
that takes the exponentials and adds them up, and those of bf16 alone cost it three quarters of a matrix product.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

BLOCK = 512  # queries per block; 256 to 1,024 are within 5 % of each other
CHUNK = 2048  # keys at a time, whose scores a cache holds; 1,024 to 4,096 are within 5 % of each other
SAFE = 40.0  # size of a score whose exponential leaves room for 2**60 like it in fp32
LARGEST = 2.0**90  # sum of a row's exponentials whose products with gradients have room in fp32
# 2**f = Σ (f·ln 2)ⁿ / n!, to 5e-5 for |f| ≤ 1/2; bf16 rounds by 4e-3. In fp32, since numba takes plain ones as double.
LOG2_E, ONE, ZERO = np.float32(1.44269504), np.float32(1.0), np.float32(0.0)
TERM_1, TERM_2, TERM_3, TERM_4 = (np.float32(term) for term in (0.69314718, 0.24022651, 0.05550411, 0.00961813))
LEAST, MOST = np.float32(-125.0), np.float32(128.0)  # powers of 2 from which an exponential is not 0, and infinite


def queries_at_once(groups: int) -> int:
    """Queries of a block where `groups` heads share keys and values: 512 to 1,023 rows of scores, at least 64 each."""
    return max(64, BLOCK >> (groups.bit_length() - 1))


def chunked(q: Tensor, k: Tensor, v: Tensor, keep: bool) -> tuple[Tensor, list[Tensor]]:
    """(attention, with `keep` what `chunked_backward` needs beside it); q (scaled): (heads of keys, queries, heads that
    share keys, head_dim), k, v: (heads of keys, keys, head_dim), the queries the last of the keys' positions.

    softmax(s)·v = Σ exp(s − c)·v / Σ exp(s − c) for any c, so what a chunk adds to both sums is final, unlike in an
    online softmax, which looks for the largest score first; c is `_shifted`'s. So no sum vanishes; the chunks are added
    in fp32. Where another score is so much larger that a sum overflows, its block is computed again by `torch.softmax`.
    Kept is the second sum, (heads of keys, queries, heads that share keys), 0 where one of the block is beyond LARGEST.
    """
    heads, length, groups, _ = q.shape
    block, before = min(queries_at_once(groups), length), k.shape[1] - length
    chunks = _Chunks(q, block, before)
    out = q.new_empty(heads, length, groups, v.shape[2])
    totals = torch.zeros(heads, length, groups) if keep else None
    for head in range(heads):
        queries, keys = _shifted(q[head], k[head])
        for first in range(0, length, block):
            rows = queries[first : first + block].flatten(0, 1)
            summed, total = torch.zeros(len(rows), v.shape[2]), torch.zeros(len(rows))
            for seen, p, sums in chunks.exponentials(rows, keys, first):
                total += sums
                summed += p @ v[head, seen]
            attended = summed / total[:, None]
            if not bool(attended.isfinite().all()):
                attended = chunks.probabilities(rows, keys, first) @ v[head, : before + first + block]
            elif totals is not None and bool((total < LARGEST).all()):
                totals[head, first : first + block] = total.unflatten(0, (-1, groups))
            out[head, first : first + block] = attended.unflatten(0, (-1, groups))
    return out, [] if totals is None else [totals]


def chunked_backward(
    q: Tensor, k: Tensor, v: Tensor, out: Tensor, totals: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `chunked`, from exponentials that are computed once more: memory grows with the length alone.

    With p = exp(s − c) / total: ds = p ∘ (grad·vᵀ − Σ grad ∘ out). The product subtracts, as two more dimensions, since
    one number of bf16 would be 2⁻⁹ off for a whole row; what ds is multiplied with is divided by the total.
    """
    heads, length, groups, _ = q.shape
    block, before = min(queries_at_once(groups), length), k.shape[1] - length
    chunks, space = _Chunks(q, block, before), q.new_empty(block * groups * CHUNK)
    grad_q = torch.empty_like(q)
    # fp32 sums: each key gathers gradients from every later block.
    grad_k, grad_v = torch.zeros_like(k, dtype=torch.float32), torch.zeros_like(v, dtype=torch.float32)
    for head in range(heads):
        queries, keys = _shifted(q[head], k[head])
        values = torch.cat([v[head], v.new_ones(len(keys), 2)], -1)
        for first in range(0, length, block):
            own = slice(first, first + block)
            rows, total = queries[own].flatten(0, 1), totals[head, own].flatten()[:, None]
            if bool(total.all()):
                parts = ((seen, p) for seen, p, _ in chunks.exponentials(rows, keys, first))
            else:
                whole, total = chunks.probabilities(rows, keys, first), torch.ones_like(total)
                parts = ((seen, whole[:, seen]) for seen in chunks.slices(first, len(rows)))
            g = grad[head, own].flatten(0, 1)
            common = -(g.float() * out[head, own].flatten(0, 1)).sum(-1, keepdim=True)
            high = common.to(g.dtype)
            g_shifted = torch.cat([g, high, (common - high).to(g.dtype)], -1)
            g, q_divided = ((t / total).to(g.dtype) for t in (g, rows[:, :-1]))
            summed = torch.zeros(len(rows), k.shape[2])
            for seen, p in parts:
                grad_v[head, seen] += p.T @ g
                ds = space[: p.numel()].view(p.shape)
                torch.mm(g_shifted, values[seen].T, out=ds)
                ds *= p
                summed += ds @ k[head, seen]
                grad_k[head, seen] += ds.T @ q_divided
            grad_q[head, own] = (summed / total).unflatten(0, (-1, groups)).to(q.dtype)
    return grad_q, grad_k, grad_v


def _shifted(q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    """One head's queries and keys with one more dimension, which subtracts c from the scores of a row.

    c is 0, since bf16 rounds small scores least, unless the larger of a row's scores with its own and the first key is
    beyond ±SAFE: then it brings that one there.
    """
    own = torch.einsum("qgd,qd->qg", q, k[len(k) - len(q) :])
    known = torch.maximum(own, q @ k[0])[..., None]
    return torch.cat([q, known.clamp(-SAFE, SAFE) - known], -1), torch.cat([k, k.new_ones(len(k), 1)], -1)


class _Chunks:
    """Scores of a block of queries with chunks of the keys that they may see."""

    def __init__(self, q: Tensor, block: int, before: int) -> None:
        self._groups, self._before = q.shape[2], before
        self._hidden = torch.full((block, block), -torch.inf, dtype=q.dtype).triu(1)[:, None]
        self._space = q.new_empty(block * self._groups * CHUNK)

    def slices(self, first: int, rows: int) -> Iterator[slice]:
        """The keys of each chunk."""
        end = self._before + first + rows // self._groups
        return (slice(start, min(end, start + CHUNK)) for start in range(0, end, CHUNK))

    def exponentials(self, rows: Tensor, keys: Tensor, first: int) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """(keys, exp of the scores with them, its sum for each row) of each chunk, in memory that the next one takes.

        Args:
            rows: (queries · heads that share keys, head_dim + 1), from query `first` on.
        """
        for seen in self.slices(first, len(rows)):
            scores = self._space[: len(rows) * (seen.stop - seen.start)].view(len(rows), -1)
            torch.mm(rows, keys[seen].T, out=scores)
            self._hide(scores, seen.start, first)
            yield seen, scores, exponentiate(scores)

    def probabilities(self, rows: Tensor, keys: Tensor, first: int) -> Tensor:
        """softmax over all keys at once."""
        scores = rows @ keys[: self._before + first + len(rows) // self._groups].T
        self._hide(scores, 0, first)
        return torch.softmax(scores, -1)

    def _hide(self, scores: Tensor, start: int, first: int) -> None:
        """Later keys than a query's own; `start` and `first` number the first key and query of the scores."""
        queries, keys = len(scores) // self._groups, scores.shape[1]
        if (diagonal := max(self._before + first, start)) < start + keys:
            behind = diagonal - self._before - first
            seen = self._hidden[:queries, :, behind : behind + start + keys - diagonal]
            scores.unflatten(0, (-1, self._groups))[..., diagonal - start :].add_(seen)


def exponentiate(scores: Tensor) -> Tensor:
    """Replaces scores, (rows, keys) without gaps, by their exponentials; returns each row's sum, in fp32.

    The compiled loop takes half as long as torch's operations on one thread, and has no others.
    """
    if scores.dtype != torch.bfloat16 or torch.get_num_threads() > 1:
        return scores.exp_().sum(-1, dtype=torch.float32)
    sums = torch.empty(len(scores))
    _compiled()(scores.view(torch.uint16).numpy(), sums.numpy())
    return sums


@cache
def _compiled() -> Any:
    from numba import njit

    # The order of a sum is free, else it is one number after the other; infinities and NaN are not.
    return njit(fastmath={"reassoc", "contract", "nsz"}, error_model="numpy")(_exponentials)


def _exponentials(bits: np.ndarray, sums: np.ndarray) -> None:
    """exp in place of numbers of bf16, given as the 16 bits of each (the upper half of fp32's), and each row's sum.

    exp(x) = 2**k · 2**f with k an integer and |f| ≤ 1/2: a polynomial, and k added to its exponent. NaN becomes
    infinite, so that a row's sum tells.
    """
    for i in range(bits.shape[0]):
        total = ZERO
        for j in range(bits.shape[1]):
            x = np.uint32(np.uint32(bits[i, j]) << np.uint32(16)).view(np.float32) * LOG2_E
            power = x if x < MOST else MOST
            k = np.rint(power)
            f = power - k
            p = np.float32(ONE + f * (TERM_1 + f * (TERM_2 + f * (TERM_3 + f * TERM_4))))
            found = np.uint32(p.view(np.uint32) + np.uint32(np.uint32(np.int32(k)) << np.uint32(23)))
            # To the nearest number of bf16, in the middle to the even one.
            odd = np.uint32(np.uint32(found >> np.uint32(16)) & np.uint32(1))
            found = np.uint32(np.uint32(found + np.uint32(np.uint32(0x7FFF) + odd)) >> np.uint32(16))
            found = found if power > LEAST else np.uint32(0)
            bits[i, j] = found
            total += np.uint32(found << np.uint32(16)).view(np.float32)
        sums[i] = total
