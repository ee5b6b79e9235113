"""`yarnlab new`: a sound study from a model's folder, and one message for whatever stands in its way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from yarnlab.corpus.packages import CorpusError
from yarnlab.families.parts import UnsupportedModel
from yarnlab.hub.errors import HubError
from yarnlab.new.parent import NewError
from yarnlab.new.write import write_study
from yarnlab.rope import make_rope
from yarnlab.study.architectures import architectures_file, read_architectures
from yarnlab.study.load import load_study
from yarnlab.study.read import StudyError, read_study
from yarnlab.workflow import Workflow

Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path, books: Path) -> Write:
    def call(name: str = "mine", **options: object) -> str:
        settings = {"revision": "main", "scale": 2.0, "text": [str(books)], "column": "text", "ignored": ()}
        settings |= {"device": "h100", "hours": None, "force": False}
        return write_study(name, tmp_path, **{**settings, **options})

    return call


def test_a_study_follows_from_config_json(tmp_path: Path, write: Write, model_folder) -> None:
    """Nobody types a size: the file has none, and the study has the model's."""
    folder = model_folder("qwen3", head_dim=32, num_key_value_heads=1, tie_word_embeddings=True, rope_theta=5e5)
    said = write(model=str(folder), scale=4.0)
    data, _ = read_study(tmp_path / "mine.yaml")
    assert "hidden_size" not in (tmp_path / "mine.yaml").read_text() and data["models"]["base"]["hub"] == {
        "asset": "base"
    }
    study = load_study(tmp_path / "mine.yaml")
    shape = study.architecture("base")
    assert (shape.family, shape.head_dim, shape.num_key_value_heads, shape.tie_word_embeddings) == (
        "qwen3",
        32,
        1,
        True,
    )
    assert (shape.original_context, shape.rope_theta, study.vocab_size("base")) == (64, 5e5, 512)
    assert study.rope("extended").context == 256 and study.models["extended"].train is not None
    assert study.evaluations.context.contexts == (64,) and study.evaluations.context.max_length == 256
    assert study.evaluations.perplexity.lengths.values()[-1] == 256 and study.claims.form == "extension"
    methods = {(m.rope.method, m.train is not None) for m in study.models.values() if m.rope is not None}
    assert methods == {("yarn", True), ("pi", True), ("none", True), ("yarn", False), ("pi", False)}
    assert "snakemake --cores all --config study=mine" in said and "GPU-hours" in said
    assert Workflow.load(str(tmp_path / "mine.yaml"), tmp_path).section("train", "extended")["architecture"]


def test_rivals_are_trained_only_where_time_allows(tmp_path: Path, write: Write, model_folder) -> None:
    write(model=str(model_folder()), hours=1e-11)
    study = load_study(tmp_path / "mine.yaml")
    assert [arm for arm, model in study.models.items() if model.train is not None] == ["extended"]
    assert study.models["extended"].train.steps == 20


def test_a_parent_with_yarn_is_extended_from_its_own_window(tmp_path: Path, write: Write, model_folder) -> None:
    """Its rope is declared as it is, and the child's scale counts from the same original context."""
    rope = {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 32, "rope_theta": 1e4}
    write(model=str(model_folder(rope_parameters=rope)), scale=2.0)
    study = load_study(tmp_path / "mine.yaml")
    base = study.rope("base")
    own = {"temperature": {"factor": base.attention_factor}}
    assert base == make_rope("yarn", scale=2, original_context=32, head_dim=16, base=1e4, **own)
    assert base.attention_factor == pytest.approx(1.0693, abs=1e-4)
    assert (study.rope("extended").scale, study.rope("extended").context) == (4, 128)


def test_experts_are_extended_without_training(tmp_path: Path, write: Write, model_folder) -> None:
    said = write(model=str(model_folder("mixtral", num_local_experts=2, num_key_value_heads=1)))
    study = load_study(tmp_path / "mine.yaml")
    assert "trained: nothing" in said and not any(model.phases for model in study.models.values())


def test_a_study_of_this_name_is_kept(write: Write, model_folder, tmp_path: Path) -> None:
    folder = str(model_folder())
    write(model=folder)
    (tmp_path / "mine.yaml").write_text("mine")
    with pytest.raises(NewError, match=r"mine\.yaml is there already: .*--force"):
        write(model=folder)
    assert (tmp_path / "mine.yaml").read_text() == "mine"
    write(model=folder, force=True)
    assert load_study(tmp_path / "mine.yaml").study == "mine"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "My Study"}, "'My Study' is no name of a study"),
        ({"model": "./nowhere/here/at-all"}, "there is no such folder, and it is no repository"),
        ({"model": str(Path(__file__).parent)}, "has no config.json; give the folder"),
        ({"scale": 1.2}, "--scale 1.2: .* reads 64 tokens already"),
        ({"scale": 0.5}, "--scale 0.5: give how many times"),
        ({"device": "abacus"}, "--device abacus: known are h100, a100, h200, cpu"),
        ({"hours": -1.0}, "--hours -1: "),
        ({"scale": 4096.0}, "the text is too short for 262,144 tokens: of the 30 files' documents 0 are so long"),
    ],
)
def test_what_cannot_be_is_one_message(write: Write, model_folder, tmp_path: Path, options: dict, message: str) -> None:
    options = {"model": str(model_folder()), **options}
    with pytest.raises(NewError, match=message):
        write(options.pop("name", "mine"), **options)
    assert not list(tmp_path.glob("m*.yaml"))


def test_a_model_without_rope_is_refused_by_name(write: Write, model_folder) -> None:
    settings = {"n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 64, "resid_pdrop": 0.0}
    with pytest.raises(UnsupportedModel, match="family gpt2"):
        write(model=str(model_folder("gpt2", **settings)))


def test_a_folder_that_is_no_model_says_what_is_missing(write: Write, model_folder) -> None:
    folder = model_folder()
    (folder / "model.safetensors").unlink()
    with pytest.raises(HubError, match="lacks weights"):
        write(model=str(folder))


def test_text_that_is_not_there_is_named(write: Write, model_folder) -> None:
    with pytest.raises(CorpusError, match=r"path .*no-books: there is no"):
        write(model=str(model_folder()), text=["no-books"])


def test_a_single_long_file_cannot_be_held_out(write: Write, model_folder, tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("words and words " * 4000)
    with pytest.raises(NewError, match="of the 1 files' documents"):
        write(model=str(model_folder()), text=[str(tmp_path / "one.txt")])


def test_a_config_that_has_changed_is_noticed_before_anything_runs(write: Write, model_folder, tmp_path: Path) -> None:
    folder = model_folder()
    write(model=str(folder))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 128}))
    with pytest.raises(StudyError, match=r"models\.base\.hub: .*config\.json has changed .*`yarnlab lock"):
        load_study(tmp_path / "mine.yaml")


def test_a_shape_that_nobody_recorded_is_asked_for(write: Write, model_folder, tmp_path: Path) -> None:
    from yarnlab.new.parent import record_architectures

    write(model=str(model_folder()))
    file = tmp_path / "mine.yaml"
    known = read_architectures()
    architectures_file().unlink()
    with pytest.raises(
        StudyError, match=r"mine\.yaml:\d+: models\.base\.hub\.architecture: is missing, .*yarnlab lock"
    ):
        load_study(file)
    record_architectures(read_study(file)[0])
    assert read_architectures() == known and load_study(file).architecture("base").hidden_size == 32


def test_keys_that_are_given_go_before_the_record(write: Write, model_folder, tmp_path: Path) -> None:
    write(model=str(model_folder()))
    file = tmp_path / "mine.yaml"
    file.write_text(file.read_text().replace("{asset: base}", "{asset: base, architecture: {alpha: 0.5, beta: 4}}"))
    shape = load_study(file).architecture("base")
    assert (shape.alpha, shape.beta, shape.hidden_size) == (0.5, 4, 32)
    file.write_text(file.read_text().replace("{asset: base,", "{asset: bas,"))
    with pytest.raises(StudyError, match=r"models\.base\.hub\.asset: there is no asset 'bas'; did you mean 'base'"):
        load_study(file)


HUB = """
import sys
from pathlib import Path
from yarnlab.new.write import write_study

text = dict(text=[sys.argv[2]], column="text")
options = dict(revision="main", scale=2.0, ignored=(), device="h100", hours=None, force=False)
print(write_study("mine", Path(sys.argv[1]), model="owner/tiny", **text, **options))
"""


def test_a_repository_is_pinned_and_nothing_but_its_words_are_fetched(
    tmp_path: Path, books: Path, model_folder
) -> None:
    """config.json and the tokenizer say all that a study needs; the weights wait for the run."""
    from hub.mini_hub import MiniHub

    folder = model_folder()
    with MiniHub() as hub:
        hub.push("models", "owner/tiny", {file.name: file.read_bytes() for file in folder.iterdir()})
        environment = {key: value for key, value in os.environ.items() if "OFFLINE" not in key} | hub.env(
            tmp_path / "home"
        )
        command = [sys.executable, "-c", HUB, str(tmp_path), str(books)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        assert set(hub.downloads()) == {"config.json", "tokenizer.json", "tokenizer_config.json"}
        assert hub.commit("models", "owner/tiny") in (tmp_path / "hub.lock.yaml").read_text()
    study = load_study(tmp_path / "mine.yaml")
    assert study.architecture("base").hidden_size == 32 and "owner/tiny@main" in read_architectures()
