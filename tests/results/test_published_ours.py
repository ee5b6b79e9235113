"""Our numbers beside published ones: which test, which length, which reasons, how sure."""

from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace

import pandas as pd
import pytest

from results.light import light
from results.published_study import arm_of, perfect
from results.synthetic import with_frames
from yarnlab.results.display import DisplayTable, to_markdown
from yarnlab.results.estimates import NotMeasured
from yarnlab.results.published.counterpart import text_of
from yarnlab.results.published.data import load_reference
from yarnlab.results.published.ours import STRICT, Ours, ours
from yarnlab.results.published.tables import curve_table, our_text, verdict_table
from yarnlab.results.published.verdict import NOT_COMPARABLE, NOT_EXCLUDED, NOT_RUN
from yarnlab.results.registry import tables
from yarnlab.results.results import Results

REFERENCE = load_reference()
FIGURE_3 = "Camera-ready Figure 3"


@pytest.fixture(scope="module")
def results(results: Results) -> Iterator[Results]:
    """The session's study under few resamples: no test here reads the bounds of an interval."""
    with light():
        yield replace(results)


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Results]:
    """A study that measured what was published."""
    with light():
        yield perfect(tmp_path_factory.mktemp("published"))


def own(results: Results, cell: str) -> Ours:
    return ours(results, REFERENCE.cell(cell))


def shown(results: Results, name: str) -> tuple[pd.DataFrame, list[DisplayTable]]:
    return tables()[name].build(results)


def test_a_figures_models_are_shown_by_one_passkey_test(results: Results) -> None:
    """Official where every model has it; as soon as one lacks it, the teacher-forced test for all, and it is said so."""

    def kinds(of: Results) -> set[str]:
        table = verdict_table(of, FIGURE_3).dropna(subset=["manifest"])
        assert table["our_model"].nunique() == 4
        return {path.split("/")[1] for path in table["manifest"]}

    assert kinds(results) == {"passkey_official"}
    assert STRICT not in to_markdown(shown(results, "camera_ready_ablation")[1])
    official = results.frame("passkey_official")
    some = with_frames(results, passkey_official=official[official["arm"].isin(["yarn-s16", "yarn-s32"])])
    assert kinds(some) == {"passkey"}
    captions = [section.caption for section in shown(some, "camera_ready_ablation")[1]]
    assert [STRICT in caption for caption in captions] == [False, True, False]
    assert STRICT not in to_markdown(shown(some, "camera_ready_table_1")[1])
    context = own(some, "t5.yarn-llama-2-7b-64k.passkey_context")  # Table 5: both of its models have the official one
    assert context.sources == ("evaluations/passkey_official/yarn-s16.manifest.json",)


def test_a_model_not_tried_at_all_does_not_decide_the_test(exact: Results) -> None:
    """One model without any trial is not run; the others stay official, though 50 trials show no equality."""
    official = exact.frames["passkey_official"]
    lost = arm_of("emozilla/Linear-Llama-7b-32k")
    after = replace(exact, frames=exact.frames | {"passkey_official": official[official["arm"] != lost]})
    verdicts = verdict_table(after, FIGURE_3).groupby("model")["verdict"].unique().map(set)
    assert verdicts.pop("emozilla/Linear-Llama-7b-32k") == {NOT_RUN} and set.union(*verdicts) == {NOT_EXCLUDED}


def test_every_reason_against_a_comparison_is_kept(results: Results) -> None:
    """An analogue on another text, its documents cut, its test another one: all of it is said."""
    found = own(results, "t2.yarn-llama-2-7b-64k.32768").incomparable or ""
    assert "scale-free analogue" in found and found.count("; ") == 1 and "math" in found
    official = results.frame("passkey_official")
    some = with_frames(results, passkey_official=official[official["arm"] == "yarn-s16"])
    passkey = own(some, "cr-f3.yarn-llama-7b-32k.8192").incomparable or ""
    assert "scale-free analogue" in passkey and STRICT in passkey


def test_the_length_named_is_the_one_measured_at(results: Results, exact: Results) -> None:
    """An analogue's own length; the sizes up to its own passkey context, not up to the published one scaled down."""
    assert own(results, "t2.yarn-llama-2-7b-64k.32768").length == 8 * 256
    assert own(results, "t4.yarn-llama-2-7b-64k.32768").length == results.evaluations["sliding_window"]["window"]
    table = verdict_table(results, "Table 5").set_index("cell")
    context, accuracy = (
        table.loc[f"t5.yarn-llama-2-7b-128k.{name}"] for name in ("passkey_context", "passkey_accuracy")
    )
    longest = int(results.frame("passkey_official")["length"].max())
    assert context["our_x"] == accuracy["our_x"] == longest != 32 * 256
    assert f" up to {longest:,} (analogue)" in our_text(SimpleNamespace(**accuracy))
    # Where the published length is ours too, it needs no second mention; where it is not, it is named.
    official = exact.frames["passkey_official"].copy()
    official.loc[(official["arm"] == "yarn-llama-2-7b-128k") & (official["length"] > 98304), "hit"] = False
    for frames, text in ((exact.frames, ""), (exact.frames | {"passkey_official": official}, " up to 98,304")):
        row = verdict_table(replace(exact, frames=frames), "Table 5").set_index("cell")
        said = our_text(SimpleNamespace(**row.loc["t5.yarn-llama-2-7b-128k.passkey_accuracy"]))
        assert said.endswith(f"]{text} reproduced")


@pytest.mark.parametrize("metric", ["pretraining_share", "step_reduction", "token_reduction"])
def test_an_analogue_has_no_share_of_a_published_budget(results: Results, metric: str) -> None:
    """The micro study's tokens over Llama's two trillion are no number; it says so, trained or not."""
    cell = next(cell for cell in REFERENCE.cells if cell.metric == metric)
    with pytest.raises(NotMeasured, match=r"says nothing of another model: .* scale-free analogue"):
        ours(results, cell)


def test_documents_of_unknown_selection_are_never_the_same(exact: Results) -> None:
    """896 documents of 16,384 tokens of the named data set, but nobody knows which: Figures 2 to 4 are not comparable."""
    protocol = REFERENCE.protocols["temperature"]
    assert text_of(exact, "redpajama", protocol, 896).other is None
    assert not text_of(exact, "redpajama", protocol, 896).same_documents
    known = protocol.model_copy(update={"selection": "first"})
    assert text_of(exact, "redpajama", known, 896).same_documents
    assert not text_of(exact, "redpajama", known, 895).same_documents
    table = curve_table(exact)
    sweep = table[table["artifact"].isin(["Figure 2", "Figure 3", "Figure 4"]) & (table["measured"] > 0)]
    assert set(sweep["verdict"]) == {NOT_COMPARABLE} and set(sweep["compared"]) == {0}
    assert set(sweep["reason"]) == {"which documents the paper read is not known"}


def test_a_sampled_number_of_ours_has_interval_and_n(exact: Results) -> None:
    """In every table of published numbers; a setting, a formula or a published standard error has none."""
    for name in ("table_1", "table_3", "table_4", "table_5", "camera_ready_table_5", "stated_values"):
        frame, sections = shown(exact, name)
        rows = frame.dropna(subset=["ours"])
        for row in rows.itertuples():
            assert (" [" in our_text(row)) == (row.low < row.high), row.cell
        counted = rows[rows["low"] < rows["high"]]
        captions = " ".join(section.caption for section in sections)
        assert "95 % intervals in brackets" in captions
        if name == "stated_values":
            assert list(sections[0].frame.query("n != '–'")["n"]) == [f"{n:g} scores" for n in counted["n"]]
        else:
            assert f"{int(counted['n'].min()):,}" in captions and str(counted["over"].iloc[0]) in captions
    assert "Ours: n = 10 documents; 95 %" in shown(exact, "table_2")[1][0].caption
    curves = shown(exact, "published_curves")[1][0].frame
    assert set(curves.loc[curves["figure"] == "Figure 1", "n a point"]) == {"10"}
