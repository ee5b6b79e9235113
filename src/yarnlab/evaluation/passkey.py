"""passkey-teacher-forced@4: the key is appended to the prompt and one forward pass scores it.

A trial is a *strict hit* if every token of the key is the model's first choice and the token after it is not a
digit: then greedy generation gives exactly the key. *expected accuracy* is the probability that sampling as the
released checkpoints do (`DECODING`) gives the key and no digit after it, and the *margin* is the smallest
log-probability lead of a key token over its best rival: continuous where accuracy is 0 or 1.

The pass is under the rope of its whole length, answer included. A static rope has no other. A dynamic one beyond L is
scaled a little less while generation writes the key, since its inputs are up to a key shorter: there a strict hit does
not say what generation gives (docs/deviations.md, 49).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from yarnlab.evaluation.base import Cell, Evaluation, Outcome, Passes, Rows, Task, room_for
from yarnlab.evaluation.decoding import DECODING
from yarnlab.evaluation.documents import EvaluationError, check_vocabulary
from yarnlab.evaluation.last_tokens import last_logits
from yarnlab.lazy import np, torch
from yarnlab.study.fields import Distinct, KeyPath, Positive

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from yarnlab.corpus.passkey import PasskeyText
    from yarnlab.corpus.tokens import TokenisedCorpus
    from yarnlab.progress import Progress
    from yarnlab.study.schema import Study

TOKENS_PER_BATCH = 8192
WORDS = 32  # of a prompt without filler, with BOS and the answer (corpus/passkey.py)


class Passkey(Evaluation):
    """passkey-teacher-forced@4: `trials` per length, depths spread evenly, five-digit keys; documents take turns
    as filler, without their numbers."""

    kind = "passkey"
    order = 3
    PROTOCOL = "passkey-teacher-forced@4"
    COLUMNS = "method scale length trial filler depth hit expected_accuracy margin"

    lengths: Annotated[Distinct[Positive], room_for(WORDS)]
    """Lengths of the prompts with their answers, in tokens."""
    trials: int = Field(ge=10)
    """Trials at each length."""

    @property
    def longest(self) -> tuple[KeyPath, int]:
        return ("lengths",), max(self.lengths)

    def cost(self, study: Study, arm: str) -> Passes:
        together = min(TOKENS_PER_BATCH, self.trials * min(self.lengths))
        return Passes([(self.trials, length) for length in self.lengths], max(*self.lengths, together), 64)

    def evaluate(self, task: Task) -> Outcome:
        """One row per trial; trials of a length lie at evenly spread depths, (i + ½)/n.

        Keys, fillers and depths depend on (seed, length, trial) alone: every model is asked the same questions.

        Raises EvaluationError for text with ids that the model does not have or without a filler, and for logits that
        are not finite.
        """
        from yarnlab.corpus.passkey import PasskeyText

        text = PasskeyText.load(task.tokenizer)
        fillers = document_fillers(text, task.corpus)
        rows = partial(self._rows, task, text, fillers)
        table = task.table([Cell(f"{n}", self.trials, partial(rows, n)) for n in self.lengths], "trial")
        rates = table.groupby("length")["hit"].mean()
        return Outcome(table, {f"passkey/{n}": float(rate) for n, rate in rates.items()})

    def _rows(self, task: Task, text: PasskeyText, fillers: list[np.ndarray], length: int, progress: Progress) -> Rows:
        """One row per trial."""
        from yarnlab.modeling import autocast

        digits, vocab_size = torch.from_numpy(text.digit_ids()), task.model.config.vocab_size
        rows = []
        trials = [draw_trial(text, fillers, length, i, self.trials, task.seed) for i in range(self.trials)]
        check_vocabulary(max(int(t[ids].max()) for t in trials for ids in ("prompt", "answer")), vocab_size)
        for batch in batches(trials, max(1, TOKENS_PER_BATCH // length)):
            with autocast(self.precision):
                scores = score_answers(
                    task.model,
                    np.stack([t["prompt"] for t in batch]),
                    np.stack([t["answer"] for t in batch]),
                    digits,
                )
            for trial, score in zip(batch, scores, strict=True):
                shown = {k: v for k, v in trial.items() if k not in ("prompt", "answer")}
                rows.append({**task.columns, "length": length, **shown, **score, "protocol": self.PROTOCOL})
            progress.advance(len(batch), note=f"{length} tokens")
        return rows


def score_answers(
    model: PreTrainedModel, prompts: np.ndarray, answers: np.ndarray, digits: torch.Tensor
) -> list[dict[str, Any]]:
    """hit, expected_accuracy and margin of each answer.

    Args:
        prompts: (batch, prompt length) token ids.
        answers: (batch, answer length) token ids of the keys.
        digits: ids of the tokens that begin with a digit, which would lengthen the key.

    Raises EvaluationError if a logit is not finite: its choice would look like a miss.
    """
    count = answers.shape[1]
    ids = torch.from_numpy(np.concatenate([prompts, answers], axis=1))
    gold = torch.from_numpy(answers)
    logits = last_logits(model, ids, count + 1)
    if not logits.isfinite().all():
        raise EvaluationError(
            f"the model's logits at the end of {ids.shape[1]} tokens are not finite: its weights or rope are broken"
        )
    choices = logits.argmax(-1)
    hits = (choices[:, :-1] == gold).all(1) & ~torch.isin(choices[:, -1], digits)
    log_p = logits[:, :-1].log_softmax(-1)
    own = log_p.gather(-1, gold[..., None])[..., 0]
    rival = log_p.scatter(-1, gold[..., None], -torch.inf).max(-1).values
    sampled, p = _nucleus(logits)
    is_key = torch.where(sampled[:, :-1] == gold[..., None], p[:, :-1], 0).sum(-1).prod(1)
    ends = torch.where(torch.isin(sampled[:, -1], digits), 0, p[:, -1]).sum(-1)
    return [
        {"hit": bool(hit), "expected_accuracy": float(expected), "margin": float(m)}
        for hit, expected, m in zip(hits, is_key * ends, (own - rival).min(1).values, strict=True)
    ]


def _nucleus(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The tokens that the released checkpoints sample from, likeliest first, and their probabilities.

    transformers applies the temperature, then top-k, then top-p to what is left.

    Args:
        logits: (…, vocabulary).

    Returns ids and probabilities, (…, top_k) each; a token that top-p leaves out has probability 0.
    """
    released = DECODING["released"]
    logits, ids = (logits / released["temperature"]).sort(-1, descending=True)
    p = logits[..., : released["top_k"]].softmax(-1)
    p = torch.where(p.cumsum(-1) - p < released["top_p"], p, 0)  # a token stays while those before it reach less
    return ids[..., : released["top_k"]], p / p.sum(-1, keepdim=True)


def document_fillers(text: PasskeyText, corpus: TokenisedCorpus) -> list[np.ndarray]:
    """The tokens of each document that may be filler: no number, since the official filler has none but the key.

    Documents without such a token are left out. Raises EvaluationError if no document has one.
    """
    digits = text.digit_ids()
    documents = (text.clean(corpus.document(i)) for i in range(len(corpus.names)))
    fillers = [filler for ids in documents if len(filler := ids[~np.isin(ids, digits)])]
    if not fillers:
        raise EvaluationError(
            f"none of the corpus's {len(corpus.names)} documents has a token that is no number, so there is no filler "
            "for a passkey prompt: name a corpus with text"
        )
    return fillers


def draw_trial(
    text: PasskeyText, fillers: list[np.ndarray], length: int, trial: int, trials: int, seed: int
) -> dict[str, Any]:
    """Question number `trial` of `trials`: its prompt and answer as token ids, its key and depth.

    The filler starts somewhere in one document and runs on into the next ones; documents take turns.
    """
    from yarnlab.corpus.passkey import random_key

    turn = trial % len(fillers)
    rng = np.random.default_rng([seed, length, trial])
    key = random_key(rng)
    answer = text.key_ids(key)
    start = int(rng.integers(len(fillers[turn])))
    filler = np.concatenate([*fillers[turn:], *fillers[: turn + 1]])  # a late start may need the first one again
    depth = (trial + 0.5) / trials
    prompt = text.prompt(answer, filler[start : start + length], depth, length)
    return {
        "trial": trial,
        "filler": turn,  # trials with one filler are no independent ones
        "depth": depth,
        "key": key,
        "prompt_tokens": len(prompt),
        "prompt": prompt,
        "answer": answer,
    }


def batches(trials: list[dict[str, Any]], size: int) -> list[list[dict[str, Any]]]:
    """Batches of equal shapes: trials whose keys have as many tokens as each other (all, if digits are split)."""
    by_shape: dict[int, list[dict[str, Any]]] = {}
    for trial in trials:
        by_shape.setdefault(len(trial["answer"]), []).append(trial)
    return [group[i : i + size] for group in by_shape.values() for i in range(0, len(group), size)]
