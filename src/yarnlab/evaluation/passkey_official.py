"""official@1: the passkey test of the paper as its code runs it (eval/passkey.py; paper §4.3.2, Table 5).

Five lines of fixed English, the garbage around the key's line cut by characters; the model continues the prompt, and
the first integer in the continuation must be the key. Keys are uniform in 1 … 50,000, so a fifth of them has fewer
than five digits; the key's place is uniform over the garbage's characters.

Unlike the official code, every draw is seeded, and the length search counts one typical prompt (longest key, half of
the garbage on each side) where the official one draws another prompt at each step.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

from yarnlab.evaluation.base import Cell, Evaluation, Outcome, Passes, Rows, Task, room_for
from yarnlab.evaluation.decoding import DECODING, cache_options
from yarnlab.evaluation.documents import EvaluationError, check_vocabulary
from yarnlab.lazy import np, pd, torch
from yarnlab.study.fields import Distinct, Positive

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedModel

    from yarnlab.progress import Progress
    from yarnlab.study.schema import Study

TASK = (
    "There is an important info hidden inside a lot of irrelevant text. Find it and memorize them. "
    "I will quiz you about the important information there."
)
GARBAGE = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
QUESTION = "What is the pass key? The pass key is"
WORDS = 48  # of a prompt without garbage, with BOS
LARGEST_KEY = 50_000
LENGTH_STEP = 128  # characters of garbage by which the search grows (--length-step)


class PasskeyOfficial(Evaluation):
    """official@1: the official prompt, garbage cut by characters, the first integer in `new_tokens` tokens."""

    kind = "passkey_official"
    order = 10
    PROTOCOL = "official@1"
    COLUMNS = "method scale length trial depth hit"
    STATIC_ONLY = "which passkey_official cannot follow: use `passkey`"

    lengths: Annotated[Distinct[Positive], room_for(WORDS)]
    """Lengths that the prompts stay just below, in tokens."""
    trials: Positive
    """Trials at each length."""
    new_tokens: Positive
    """Tokens that are generated after each prompt."""
    decoding: Literal["greedy", "released"]
    """How: `greedy`, or `released`, sampled with temperature 0.6 and top-p 0.9 as the released checkpoints do."""

    @property
    def reads_corpus(self) -> bool:
        return False

    def cost(self, study: Study, arm: str) -> Passes:
        longest = max(self.lengths)
        runs: list[tuple[float, int]] = [(self.trials, length + self.new_tokens) for length in self.lengths]
        return Passes(runs, longest, 1, cached=longest + self.new_tokens)

    def evaluate(self, task: Task) -> Outcome:
        """One row per length and trial, with what the model wrote (`generated`) and the integer `found` in it, if any.

        Keys, places and draws depend on (seed, length, trial) alone: every model is asked the same questions.

        Raises EvaluationError for a length below that of the fixed text, and for a tokenizer with ids that the model
        does not have.
        """
        from yarnlab.attention import masked

        task.model.set_attn_implementation(masked(task.model))  # takes a cache
        cells = [Cell(f"{length}", self.trials, partial(self._rows, task, length)) for length in self.lengths]
        rows = task.rows(cells, "trial")
        table = pd.DataFrame(rows).assign(found=pd.array([row["found"] for row in rows], dtype="Int64"))
        rates = table.groupby("length")["hit"].mean()
        return Outcome(table, {f"passkey_official/{length}": float(rate) for length, rate in rates.items()})

    def _rows(self, task: Task, length: int, progress: Progress) -> Rows:
        """One row per trial."""
        from yarnlab.corpus.tokenizer import load_tokenizer, special_ids
        from yarnlab.modeling import autocast

        tokenizer, bos = load_tokenizer(task.tokenizer), special_ids(task.tokenizer).bos
        rows = []
        garbage = garbage_for(length, lambda n: len(_encode(tokenizer, _typical(n))) + 1)
        for i in range(self.trials):
            trial = draw_trial(task.seed, length, i, garbage)
            ids = [bos, *_encode(tokenizer, trial.text)]
            check_vocabulary(max(ids), task.model.config.vocab_size)
            with autocast(self.precision):
                new = continuation(task.model, ids, self.new_tokens, self.decoding, trial.draw)
            generated = tokenizer.decode(new, skip_special_tokens=True)
            found = first_integer(generated)
            rows.append(
                {
                    **task.columns,
                    "length": length,
                    "trial": i,
                    "depth": trial.depth,
                    "key": trial.key,
                    "prompt_tokens": len(ids),
                    "generated": generated,
                    "found": found,
                    "hit": found == trial.key,
                    "protocol": self.PROTOCOL,
                }
            )
            progress.advance(note=f"{length} tokens")
        return rows


@dataclass(frozen=True)
class Trial:
    """One question: `prefix` of the `garbage` characters stand before the key's line; `draw` seeds the sampling."""

    key: int
    garbage: int
    prefix: int
    draw: int

    @property
    def text(self) -> str:
        """The prompt, up to where the key must follow (eval/passkey.py:15-36)."""
        repeated = " ".join([GARBAGE] * (self.garbage // len(GARBAGE) + 1))
        statement = f"The pass key is {self.key}. Remember it. {self.key} is the pass key."
        return "\n".join([TASK, repeated[: self.prefix], statement, repeated[: self.garbage - self.prefix], QUESTION])

    @property
    def depth(self) -> float:
        """The share of the garbage's characters that stands before the key's line."""
        return self.prefix / max(1, self.garbage)


def draw_trial(seed: int, length: int, trial: int, garbage: int) -> Trial:
    """The question that (seed, length, trial) decide: key uniform in 1 … 50,000, prefix uniform in 0 … garbage."""
    rng = np.random.default_rng([seed, length, trial])
    key, prefix, draw = rng.integers(1, LARGEST_KEY + 1), rng.integers(garbage + 1), rng.integers(2**62)
    return Trial(int(key), garbage, int(prefix), int(draw))


def garbage_for(length: int, tokens_of: Callable[[int], int], step: int = LENGTH_STEP) -> int:
    """The last multiple of `step` characters before the one with which a prompt reaches `length` tokens.

    The official search counts the tokens at every step (eval/passkey.py:74-84); their number grows with the garbage,
    so doubling and bisection find the same place.

    Args:
        tokens_of: tokens of a prompt with that many characters of garbage, BOS included.

    Raises EvaluationError if the prompt without garbage has `length` tokens already.
    """
    least = tokens_of(0) + 1
    if least > length:
        raise EvaluationError(f"an official passkey prompt needs a length of {least} tokens at least, not {length}")
    longest = step
    while tokens_of(longest) < length:
        longest *= 2
    candidates = range(0, longest + 1, step)
    return candidates[bisect_left(candidates, length, key=tokens_of) - 1]


def continuation(model: PreTrainedModel, ids: Sequence[int], new_tokens: int, decoding: str, seed: int) -> list[int]:
    """Up to `new_tokens` tokens after `ids`, generated with a key-value cache; EOS ends it.

    Args:
        decoding: a name in `DECODING`.
        seed: of the sampling; torch's own generator is left as it was.

    Raises EvaluationError if a logit is not finite: greedy decoding would go on as if nothing were wrong.
    """
    prompt = torch.tensor([ids], device=model.device)
    generate: Any = model.generate
    with torch.inference_mode(), torch.random.fork_rng():
        torch.manual_seed(seed)
        out = generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=new_tokens,
            use_cache=True,
            pad_token_id=ids[0],  # nothing is padded; unset, it would be warned about
            logits_processor=[_refuse_broken],
            **DECODING[decoding],
            **cache_options(model, len(ids) + new_tokens),
        )
    return out[0, len(ids) :].tolist()


def _refuse_broken(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """Scores as they are, at every step of `generate`; EvaluationError if they are not finite."""
    if not scores.isfinite().all():
        raise EvaluationError(
            f"the model's logits after {ids.shape[1]} tokens are not finite: its weights or rope are broken"
        )
    return scores


def first_integer(text: str) -> int | None:
    """The first run of digits, whatever stands before it (eval/passkey.py:45); at most 2⁶³ − 1, to fit a column."""
    digits = re.search(r"\d+", text)
    return min(int(digits.group()), 2**63 - 1) if digits else None


def _typical(garbage: int) -> str:
    return Trial(LARGEST_KEY, garbage, garbage // 2, draw=0).text


def _encode(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False).ids
