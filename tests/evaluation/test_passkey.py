"""Teacher forcing must judge as generation would."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from yarnlab.corpus.passkey import PasskeyText, random_key
from yarnlab.corpus.tokenizer import load_tokenizer
from yarnlab.corpus.tokens import TokenisedCorpus
from yarnlab.evaluation.decoding import DECODING
from yarnlab.evaluation.documents import EvaluationError
from yarnlab.evaluation.passkey import Passkey, _nucleus, document_fillers, draw_trial, score_answers
from yarnlab.modeling import create_model


def evaluate(task):
    return Passkey(**task.settings).evaluate(task)


@pytest.fixture
def text(tiny_data):
    return PasskeyText(load_tokenizer(tiny_data / "tokenizer"))


def greedy(model, prompt: np.ndarray, count: int) -> list[int]:
    ids = torch.from_numpy(prompt)[None]
    with torch.no_grad():
        out = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=count,
            do_sample=False,
            use_cache=False,
            pad_token_id=1,
        )
    return out[0, len(prompt) :].tolist()


def test_strict_hit_equals_greedy_generation(tiny_model, text):
    """For the model's own greedy continuation and for changed ones: hit if and only if generation gives the answer
    and goes on with something that is not a digit."""
    digits = torch.from_numpy(text.digit_ids())
    rng = np.random.default_rng(0)
    hits = []
    for trial in range(12):
        prompt = text.prompt(text.key_ids(random_key(rng)), rng.integers(10, 300, 150), rng.random(), 150)
        generated = greedy(tiny_model, prompt, 6)
        answer = np.array(generated[:5])
        if trial % 2:
            answer[rng.integers(5)] = rng.integers(10, 300)
        expected = generated[:5] == answer.tolist() and generated[5] not in digits.tolist()
        scored = score_answers(tiny_model, prompt[None], answer[None], digits)[0]
        assert scored["hit"] == expected
        assert (scored["margin"] > 0) == (generated[:5] == answer.tolist())
        hits.append(expected)
    assert any(hits) and not all(hits)


def test_a_longer_number_is_not_a_hit(tiny_model, text):
    """If the model would go on with a sixth digit, the answer is another number."""
    prompt = text.prompt(text.key_ids("12345"), np.arange(10, 160), 0.5, 150)
    generated = greedy(tiny_model, prompt, 6)
    answer = np.array(generated[:5])[None]
    assert score_answers(tiny_model, prompt[None], answer, torch.tensor([-1]))[0]["hit"]
    assert not score_answers(tiny_model, prompt[None], answer, torch.tensor([generated[5]]))[0]["hit"]


def test_expected_accuracy_is_the_probability_of_sampling_the_key(tiny_model, text):
    """transformers' own sampler, set as the released checkpoints are, draws the answer as often as computed, and so it
    does the answer with no digit after it (3 s.e.). The likeliest token after the answer is called a digit here."""
    prompt = text.prompt(text.key_ids("12345"), np.arange(10, 160), 0.5, 150)
    ids = torch.from_numpy(prompt)[None]
    torch.manual_seed(0)
    with torch.no_grad():
        drawn = tiny_model.generate(
            ids.expand(400, -1), attention_mask=torch.ones(400, len(prompt), dtype=torch.int64), max_new_tokens=3,
            **DECODING["released"], use_cache=False, pad_token_id=1,
        )[:, len(prompt) :]  # fmt: skip
    values, counts = drawn[:, :2].unique(dim=0, return_counts=True)
    answer = values[counts.argmax()]
    after = drawn[(drawn[:, :2] == answer).all(1), 2]
    digit = after.mode().values
    for digits, seen in ((torch.tensor([], dtype=torch.int64), len(after)), (digit[None], int((after != digit).sum()))):
        scored = score_answers(tiny_model, prompt[None], answer[None].numpy(), digits)[0]
        p = scored["expected_accuracy"]
        assert 0 < p < 1
        assert abs(seen / 400 - p) < 3 * (p * (1 - p) / 400) ** 0.5


@pytest.mark.parametrize(("after", "hit", "expected"), [(6, False, 0.0), (99, True, 1.0)])
def test_a_key_that_a_digit_follows_is_neither_hit_nor_expected(monkeypatch, after, hit, expected):
    """A model that is sure of all five digits and of a sixth gives another number, for certain."""
    key, digits = torch.arange(1, 6), torch.arange(10)
    sure = 50.0 * torch.nn.functional.one_hot(torch.cat([key, torch.tensor([after])]), 100)
    monkeypatch.setattr("yarnlab.evaluation.passkey.last_logits", lambda model, ids, count: sure[None])
    scored = score_answers(None, np.zeros((1, 3), np.int64), key[None].numpy(), digits)[0]
    assert (scored["hit"], scored["expected_accuracy"]) == (hit, pytest.approx(expected))


def test_nucleus_keeps_the_smallest_set_that_reaches_top_p():
    """Probabilities .5, .3, .15, .05: the first three are kept (.5 + .3 < .9), and renormalised."""
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]])) * 0.6  # undone by the temperature
    ids, p = _nucleus(logits)
    assert ids.tolist() == [[0, 1, 2, 3]]
    assert p[0].tolist() == pytest.approx([0.5 / 0.95, 0.3 / 0.95, 0.15 / 0.95, 0.0], abs=1e-6)


def test_nucleus_is_of_the_fifty_likeliest():
    """Of a hundred tokens alike, the first fifty are left, and top-p keeps forty-five of these."""
    ids, p = _nucleus(torch.zeros(100))
    assert len(set(ids.tolist())) == 50
    assert p.tolist() == pytest.approx([1 / 45] * 45 + [0.0] * 5)


def test_trials_are_the_same_questions_for_every_model(tiny_task):
    """Depths spread evenly, five-digit keys, no prompt longer than its window; a second call asks the same."""
    settings = {"lengths": [128, 256], "trials": 10}
    one, two, other = (evaluate(tiny_task(settings, seed=seed)).table for seed in (5, 5, 6))
    assert one.equals(two)
    assert not one["key"].equals(other["key"])
    for length, cell in one.groupby("length"):
        assert cell["depth"].tolist() == pytest.approx([(i + 0.5) / 10 for i in range(10)])
        assert (cell["prompt_tokens"] + 5 <= length).all()
    assert one["key"].str.fullmatch(r"\d{5}").all()
    assert set(one["protocol"]) == {"passkey-teacher-forced@4"}


def test_broken_weights_are_an_error_and_no_miss(tiny_task, tiny_model):
    """NaN logits have an argmax too: it would be recorded as 0 %."""
    with torch.no_grad():
        tiny_model.model.norm.weight.fill_(torch.nan)
    with pytest.raises(EvaluationError, match="not finite"):
        evaluate(tiny_task({"lengths": [128], "trials": 10}, model=tiny_model))


def test_text_of_another_tokenizer_is_refused(tiny_task, architecture):
    """Ids that the model does not have would be an index error in the embedding, or garbage on a GPU."""
    model = create_model(architecture, vocab_size=100, seed=0).eval()
    with pytest.raises(EvaluationError, match="ends at 99"):
        evaluate(tiny_task({"lengths": [128], "trials": 10}, model=model))


def test_filler_runs_on_into_the_first_document_again(text):
    """One document of just the needed length is enough wherever the filler starts in it."""
    fillers = [np.arange(10, 10 + 256, dtype=np.int64)]
    starts = set()
    for trial in range(20):
        drawn = draw_trial(text, fillers, 256, trial, 20, seed=0)
        assert drawn["prompt_tokens"] + len(drawn["answer"]) == 256
        starts.add(int(drawn["prompt"][1 + len(text.test.opening)]))
    assert len(starts) > 10


def corpus_of(text: PasskeyText, *documents: list[int]) -> TokenisedCorpus:
    """Documents of these ids between BOS and EOS."""
    rows = [np.array([text.bos, *ids, text.eos]) for ids in documents]
    starts = np.cumsum([0, *map(len, rows)])[:-1]
    names, lengths = tuple(f"{i}.txt" for i in range(len(rows))), tuple(map(len, rows))
    return TokenisedCorpus(np.concatenate([np.empty(0, np.int64), *rows]), names, tuple(starts.tolist()), lengths)


def test_documents_without_filler_are_left_out(text):
    """A document of numbers has nothing to draw from; the others keep their order and their tokens."""
    number, words = text.key_ids("2718281828").tolist(), [list(range(20, 90)), list(range(90, 200))]
    kept, all_kept = (
        document_fillers(text, corpus_of(text, *documents)) for documents in ([number, words[0], [], words[1]], words)
    )
    assert [filler.tolist() for filler in kept] == [filler.tolist() for filler in all_kept]
    assert [draw_trial(text, kept, 128, i, 4, seed=0)["prompt_tokens"] for i in range(4)] == [123] * 4


@pytest.mark.parametrize("documents", [[], [""], ["31415", "27182"]])
def test_a_corpus_without_filler_is_an_error(text, documents):
    """No document at all, an empty one, numbers alone: one message instead of a division by zero."""
    with pytest.raises(EvaluationError, match=f"none of the corpus's {len(documents)} documents .* name a corpus"):
        document_fillers(text, corpus_of(text, *(text.key_ids(digits).tolist() for digits in documents)))
