"""The official passkey protocol, held against a text written out by hand and the official loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from yarnlab.corpus.tokenizer import load_tokenizer
from yarnlab.evaluation import passkey_official
from yarnlab.evaluation.documents import EvaluationError
from yarnlab.evaluation.passkey_official import (
    PasskeyOfficial,
    Trial,
    continuation,
    draw_trial,
    first_integer,
    garbage_for,
)


def evaluate(task):
    return PasskeyOfficial(**task.settings).evaluate(task)


SETTINGS = {"lengths": [400, 600], "trials": 3, "new_tokens": 10, "decoding": "greedy"}


@pytest.fixture
def encode(tiny_data):
    tokenizer = load_tokenizer(tiny_data / "tokenizer")
    return lambda text: tokenizer.encode(text, add_special_tokens=False).ids


@pytest.fixture
def sdpa_model(tiny_model):
    tiny_model.set_attn_implementation("sdpa")
    return tiny_model


def test_the_text_is_the_official_one():
    """Five lines; 100 characters of garbage, of which 95 stand before the key: more than one repetition of the text,
    cut within a word, and begun anew after the key."""
    assert Trial(key=417, garbage=100, prefix=95, draw=0).text == (
        "There is an important info hidden inside a lot of irrelevant text. Find it and memorize them. "
        "I will quiz you about the important information there.\n"
        "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again. The g\n"
        "The pass key is 417. Remember it. 417 is the pass key.\n"
        "The g\n"
        "What is the pass key? The pass key is"
    )


def test_without_garbage_its_two_lines_are_empty():
    """The joined text keeps the line breaks around nothing."""
    trial = Trial(key=50000, garbage=0, prefix=0, draw=0)
    assert "there.\n\nThe pass key is 50000." in trial.text
    assert "is the pass key.\n\nWhat is" in trial.text
    assert trial.depth == 0


def test_keys_and_places_cover_their_ranges_evenly():
    """Keys in 1 … 50,000, a fifth of them with fewer than five digits; places in 0 … garbage, both ends included.

    Of 4,000 keys 800 ± 25 are short; of 4,000 places each of eleven gets 364 ± 18. Five standard errors are allowed.
    """
    trials = [draw_trial(0, 4096, i, garbage=10) for i in range(4000)]
    keys = np.array([trial.key for trial in trials])
    assert keys.min() >= 1
    assert 49_900 <= keys.max() <= 50_000
    assert abs((keys < 10_000).sum() - 800) < 126
    places = np.bincount([trial.prefix for trial in trials], minlength=11)
    assert len(places) == 11
    assert (abs(places - 4000 / 11) < 91).all()


def test_the_ends_of_the_key_range_are_drawn(monkeypatch):
    """With three keys instead of 50,000 all three come up, and no other."""
    monkeypatch.setattr(passkey_official, "LARGEST_KEY", 3)
    assert {draw_trial(0, 1, i, 0).key for i in range(50)} == {1, 2, 3}


@pytest.mark.parametrize("step", [128, 25, 1000])
def test_the_length_search_equals_the_official_loop(encode, step):
    """Counting at every step, each target continuing from the last one's place, finds the same garbage."""
    counted: dict[int, int] = {}

    def tokens_of(n: int) -> int:
        counted[n] = len(encode(Trial(50_000, n, n // 2, 0).text)) + 1
        return counted[n]

    targets = [tokens_of(0) + 1, *range(300, 3000, 270)]
    last_n, official = 0, []
    for target in targets:
        num_tokens, n = 0, last_n
        while num_tokens < target:
            last_n = n
            n += step
            num_tokens = tokens_of(n)
        official.append(last_n)
    assert official[0] == 0 < official[-1]

    assert [garbage_for(target, tokens_of, step) for target in targets] == official
    counted.clear()
    garbage_for(targets[-1], tokens_of, step)
    assert len(counted) <= 2 * np.log2(4 * official[-1] / step) + 2  # not one for every step


def test_prompts_reach_their_length_but_for_a_step(tiny_task):
    """Below the length by less than a step's 128 characters, each a token at most; the draw of key and place moves a
    prompt by a few tokens only, so that it exceeds the length by as many at most."""
    for length, cell in evaluate(tiny_task({**SETTINGS, "trials": 8})).table.groupby("length"):
        assert (cell["prompt_tokens"] > length - 128).all()
        assert (cell["prompt_tokens"] < length + 8).all()


def test_a_length_below_the_fixed_text_names_what_it_needs(tiny_task):
    """The number in the message is the least that works."""
    with pytest.raises(EvaluationError, match=r"not 48$") as caught:
        evaluate(tiny_task({**SETTINGS, "lengths": [48]}))
    least = int(str(caught.value).split("length of ")[1].split()[0])
    assert len(evaluate(tiny_task({**SETTINGS, "lengths": [least]})).table) == 3
    with pytest.raises(EvaluationError, match=f"not {least - 1}$"):
        evaluate(tiny_task({**SETTINGS, "lengths": [least - 1]}))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (" 41736.", 41736),
        (" 41736. Remember it. 9 is the pass key", 41736),
        (" hidden: it is 417", 417),
        ("417 36", 417),
        ("00417", 417),
        ("4 1 7", 4),
        ("-417", 417),
        (" The grass is green.", None),
        ("", None),
        ("9" * 25, 2**63 - 1),
    ],
)
def test_the_first_integer_counts(text, found):
    """Text before it is forgiven, anything after it ignored, signs and leading zeros are not part of it."""
    assert first_integer(text) == found


def test_rows_say_what_was_asked_written_and_found(tiny_task, tiny_data, monkeypatch):
    """A model that writes the key, after other text, hits; another number or none is a miss. Columns are complete."""
    tokenizer = load_tokenizer(tiny_data / "tokenizer")
    answers = iter(["is {}.", "is {}1", "is not here"] * 2)

    def write(model, ids, new_tokens, decoding, seed):
        key = tokenizer.decode(ids).rsplit(" is the pass key.", 1)[0].split()[-1]
        return tokenizer.encode(next(answers).format(key), add_special_tokens=False).ids

    monkeypatch.setattr(passkey_official, "continuation", write)
    outcome = evaluate(tiny_task(SETTINGS))
    table = outcome.table
    assert table["hit"].tolist() == [True, False, False] * 2
    assert table["found"].isna().tolist() == [False, False, True] * 2
    assert (table["found"] == table["key"])[table["hit"]].all()
    assert str(table["found"].dtype) == "Int64"
    assert table["generated"][0] == f"is {table['key'][0]}."
    assert table["depth"].between(0, 1).all()
    assert set(table["protocol"]) == {"official@1"}
    assert list(table) == [
        "model", "arm", "method", "scale", "seed", "length", "trial", "depth", "key", "prompt_tokens", "generated",
        "found", "hit", "protocol",
    ]  # fmt: skip
    assert outcome.metrics == {"passkey_official/400": 1 / 3, "passkey_official/600": 1 / 3}


@pytest.mark.parametrize("decoding", ["greedy", "released"])
def test_a_trial_depends_on_seed_length_and_number_alone(tiny_task, decoding):
    """Whatever else is asked beside it, and whatever was drawn before; another seed asks something else."""
    settings = {**SETTINGS, "decoding": decoding}
    table = evaluate(tiny_task(settings, seed=5)).table
    torch.manual_seed(123)
    alone = evaluate(tiny_task({**settings, "lengths": [600], "trials": 2}, seed=5)).table
    same = table[(table["length"] == 600) & (table["trial"] < 2)].reset_index(drop=True)
    assert alone.equals(same)
    other = evaluate(tiny_task(settings, seed=6)).table
    assert not other["key"].equals(table["key"])
    assert not other["depth"].equals(table["depth"])


def test_cached_greedy_generation_equals_recomputation(sdpa_model):
    """Each token is the first choice of a whole forward pass over everything before it."""
    ids = [0, *range(10, 210)]
    expected = list(ids)
    with torch.inference_mode():
        for _ in range(10):
            expected.append(int(sdpa_model(torch.tensor([expected]), use_cache=False).logits[0, -1].argmax()))
    assert continuation(sdpa_model, ids, 10, "greedy", seed=0) == expected[len(ids) :]
    assert len(set(expected[len(ids) :])) > 1


def test_greedy_overrides_a_checkpoint_that_samples(sdpa_model):
    """The released checkpoints' generation_config asks for sampling; `greedy` means greedy all the same."""
    plain = continuation(sdpa_model, list(range(100)), 10, "greedy", seed=0)
    sdpa_model.generation_config.do_sample = True
    sdpa_model.generation_config.temperature = 5.0
    assert [continuation(sdpa_model, list(range(100)), 10, "greedy", seed=s) for s in (1, 2)] == [plain, plain]


def test_released_decoding_samples_from_the_nucleus_at_temperature(sdpa_model):
    """First tokens of 100 trials: each lies in the smallest set that reaches 0.9 at temperature 0.6, and the
    likeliest comes up as often as computed (4 standard errors). The caller's random state is left alone."""
    ids = list(range(100))
    with torch.inference_mode():
        p, order = (sdpa_model(torch.tensor([ids])).logits[0, -1].float() / 0.6).softmax(-1).sort(descending=True)
    size = int((p.cumsum(-1) - p < 0.9).sum())
    assert 1 < size <= 50  # so top-k 50 changes nothing here
    state = torch.get_rng_state()
    drawn = [continuation(sdpa_model, ids, 1, "released", seed)[0] for seed in range(100)]
    assert torch.equal(torch.get_rng_state(), state)
    assert set(drawn) <= set(order[:size].tolist())
    rate, expected = drawn.count(int(order[0])) / 100, float(p[0] / p[:size].sum())
    assert abs(rate - expected) < 4 * (expected * (1 - expected) / 100) ** 0.5


def test_the_prompt_begins_with_bos_and_is_processed_once(tiny_task, tiny_model, encode):
    """The model sees BOS and the text's tokens in one pass, then one token at a time."""
    seen = []
    tiny_model.model.embed_tokens.register_forward_hook(lambda _, args, __: seen.append(args[0][0].tolist()))
    row = evaluate(tiny_task({**SETTINGS, "lengths": [400], "trials": 1}, seed=3)).table.iloc[0]
    garbage = garbage_for(400, lambda n: 1 + len(encode(Trial(50_000, n, n // 2, 0).text)))
    assert seen[0] == [0, *encode(draw_trial(3, 400, 0, garbage).text)]
    assert len(seen[0]) == row["prompt_tokens"]
    assert [len(step) for step in seen[1:]] == [1] * 9


def test_a_tokenizer_of_another_model_is_refused(tiny_task, architecture):
    """Token ids beyond the vocabulary would be an index error in the embedding, or garbage on a GPU."""
    from yarnlab.modeling import create_model

    model = create_model(architecture, vocab_size=100, seed=0).eval()
    with pytest.raises(EvaluationError, match="ends at 99"):
        evaluate(tiny_task(SETTINGS, model=model))


def test_broken_weights_are_an_error_and_no_miss(tiny_task, tiny_model):
    """Greedy decoding of NaN logits writes something too: it would be recorded as a miss."""
    with torch.no_grad():
        tiny_model.model.norm.weight.fill_(torch.nan)
    with pytest.raises(EvaluationError, match="not finite"):
        evaluate(tiny_task(SETTINGS, model=tiny_model))
