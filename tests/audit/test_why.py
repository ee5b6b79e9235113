"""`why`: cells, claims and points are found by the words around them, and the chain names all that made them."""

from __future__ import annotations

import json
import sys

import pytest

from yarnlab import cli
from yarnlab.audit.cells import find
from yarnlab.audit.chain import chain
from yarnlab.audit.folder import AuditError, Folder


@pytest.fixture(scope="module")
def folder(sound) -> Folder:
    return Folder(sound)


def displayed(folder: Folder, number: int) -> dict:
    return json.loads((folder.path / "tables/perplexity.json").read_text())["displayed"][number - 1]


@pytest.mark.parametrize(
    "address",
    [
        "perplexity[yarn-s16, 512, #1]",
        "perplexity[YaRN s=16, 512 (2L), whole window]",
        "tables/perplexity[ yarn-s16,512,#1 ]",
        "perplexity[#1, 512, yarn s=16]",
    ],
)
def test_a_cell_is_found_by_its_words(folder, address):
    cell = find(folder, address)
    table = displayed(folder, 1)
    (row,) = [row for row in table["rows"] if row["cells"][0] == "YaRN s=16"]
    assert cell.shown == row["cells"][table["columns"].index("512 (2L)")]
    assert cell.sources == ("evaluations/perplexity/yarn-s16.manifest.json",)
    assert cell.target == "tables/perplexity.csv" and not cell.timed


def test_a_length_may_have_its_separator(folder):
    assert find(folder, "perplexity[base, 1,024, #2]") == find(folder, "perplexity[base,1024,#2]")


def test_the_chain_leads_to_the_data(folder):
    """Evaluation, model, parent, corpora: each with code, settings, seed, machine; what is read is made first."""
    text = chain(folder, find(folder, "perplexity[yarn-s32, 512, #1]"))
    order = ["perplexity yarn-s32", "corpus math", "train yarn-s32", "train yarn-s16", "train base", "corpus train"]
    assert [line[2:].split(":")[0] for line in text.splitlines() if line.startswith("←")] == order
    for word in ("code ", "settings ", "seeds     seed 42", "machine ", "made ", "holds "):
        assert text.count(f"\n  {word}") == len(order), word
    commands = [line.strip() for line in text.splitlines() if line.startswith("  envs/run snakemake")]
    run = "envs/run snakemake --cores all --config study=micro -- results/micro/"
    assert commands[0] == f"{run}data/train/manifest.json" and commands[-1] == f"{run}tables/perplexity.csv"
    assert commands[-2] == f"{run}evaluations/perplexity/yarn-s32.manifest.json" and len(commands) == len(order) + 1


def test_a_point_of_a_figure_is_found_by_its_values(folder):
    cell = find(folder, "figure_1[yarn-s16, 512]")
    assert "perplexity " in cell.shown and cell.target == "figures/figure_1.svg"
    assert cell.sources == ("evaluations/perplexity/yarn-s16.manifest.json",)
    assert find(folder, "figures/figure_6[YaRN s=16, 512]").shown == cell.shown  # as the paper calls it


@pytest.mark.parametrize("address", ["15", "claim 15", "claims[15]"])
def test_a_claim_is_found_by_its_id(folder, address):
    cell = find(folder, address)
    (claim,) = [
        claim for claim in json.loads((folder.path / "claims.json").read_text())["claims"] if claim["id"] == "15"
    ]
    assert cell.shown == claim["text"] and list(cell.sources) == claim["sources"] and cell.target == "analysis.json"


def test_a_time_is_said_to_be_another_one_next_time(folder):
    cell = find(folder, "training[base, time]")
    assert cell.timed and "made again, it is another number" in chain(folder, cell)
    assert not find(folder, "training[base, final loss]").timed


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("perplexty[base, 512]", "no table, figure or claim of this study is called 'perplexty'; did you mean 'perplexity'?"),
        ("perplexity[yarn-s61, 512]", "nothing in it is called 'yarn-s61'; did you mean 'yarn-s16'?"),
        ("perplexity[base, 513]", "nothing in it is called '513'; did you mean '512'?"),
        ("perplexity", "name a row and a column: perplexity["),
        ("perplexity[base, 512]", "is 2 numbers; say which:\n  perplexity[base, 512 (2L), #1]: "),
        ("perplexity[base, yarn-s16, 512]", "no cell stands in such a row and column; the columns of perplexity: "),
        ("figure_1[base]", "points; say which, by its values:\n"),
        ("figure_1[bose, 512]", "nothing in it is called 'bose'; did you mean 'base'?; its points have model, N"),
        ("accept-passkey-frist", "did you mean 'accept-passkey-first'?"),
        ("passkey[base, 512]", "no table, figure or claim of this study is called 'passkey'"),
        ("", "no table, figure or claim of this study is called ''"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_message_with_what_is_near(folder, address, message):
    with pytest.raises(AuditError) as said:
        find(folder, address)
    assert str(said.value).startswith(address) and message in str(said.value)


def test_every_choice_that_a_message_offers_is_an_address(folder):
    with pytest.raises(AuditError) as said:
        find(folder, "perplexity[base, 512]")
    choices = [line.strip() for line in str(said.value).splitlines()[1:]]
    assert len(choices) == 2
    for choice in choices:
        address, shown = choice.split("]: ")
        assert shown.startswith(find(folder, f"{address}]").shown)


def test_a_table_that_was_changed_is_not_explained(study):
    (study / "tables/perplexity.json").write_text("{}")
    with pytest.raises(AuditError, match=r"is not what the analysis wrote: .* -R analyse"):
        find(Folder(study), "perplexity[base, 512, #1]")
    (study / "study.json").write_text("{")
    with pytest.raises(AuditError, match=r"study\.json can't be read: .* -R study_json"):
        find(Folder(study), "12")


def test_the_verb(sound, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["yarnlab", "why", str(sound), "perplexity[base, 512, #1]"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    assert capsys.readouterr().out.startswith(f"number    {displayed(Folder(sound), 1)['rows'][0]['cells'][3]}\n")
