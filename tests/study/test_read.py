"""The YAML of study files: whatever it holds, the outcome is plain values or one message with file and line."""

from __future__ import annotations

import pytest

from yarnlab.study.read import StudyError, read_study


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("study: demo\nseed: !foo 1\n", ":2: seed: the tag !foo means nothing here"),
        ("study: demo\nmodels: !foo {a: 1}\n", ":2: models: the tag !foo means nothing here"),
        ("study: demo\nmodels: !!set {a, b}\n", ":2: models: the tag !!set means nothing here"),
        ("study: demo\ndata: !!binary aGk=\n", ":2: data: the tag !!binary means nothing here"),
        ("study: demo\nseed: !!int one\n", ":2: seed: 'one' is no int"),
        ("study: demo\nseed: !!bool maybe\n", ":2: seed: 'maybe' is no bool"),
        ("study: demo\ntitle: a \x07 bell\n", ":2: not valid YAML: special characters are not allowed"),
        ("study: dömö\ntitle: é \x07 bell\n", ":2: not valid YAML: special characters are not allowed"),
        ("study: demo\ntitle: Erklärung\n".encode("latin-1"), ":2: byte 0xe4 is not UTF-8"),
        ("study: demo\n".encode("utf-16"), ":1: byte 0xff is not UTF-8"),
        ("study: demo\nmodels: {<<: 5}\n", ":2: not valid YAML: expected a mapping or list of mappings for merging"),
        ("study: demo\nmodels: {<<: [5]}\n", ":2: not valid YAML: expected a mapping for merging"),
        ("study: demo\n? [a, b]\n: 1\n", ":2: study: a key is one word, found a list or mapping"),
        ("study: &again\n  again: *again\n", ":1: study: nested without end"),
        ("study: demo\n---\nstudy: two\n", ":2: not valid YAML: but found another document"),
        ("study: demo\ntitle: [a\n", ":3: not valid YAML"),
        ("- a\n", ":1: a study file is a mapping of keys, this is list"),
        ("", ":1: a study file is a mapping of keys, this is NoneType"),
        ("study: demo\nextends: [a]\n", ":2: extends: expected the name of a study file, found ['a']"),
        ("study: demo\nextends: b.yaml\n", "there is no such study file (which demo.yaml extends)"),
    ],
)
def test_mistakes_in_the_yaml(tmp_path, content, message):
    file = tmp_path / "demo.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(StudyError) as caught:
        read_study(file)
    text = str(caught.value)
    assert message in text and text.startswith(str(tmp_path)) and "\n" not in text


def test_a_folder_is_no_study_file(tmp_path):
    (tmp_path / "demo.yaml").mkdir()
    with pytest.raises(StudyError, match=r"demo\.yaml: can't be read: Is a directory"):
        read_study(tmp_path / "demo.yaml")


@pytest.mark.parametrize("title", ["2026-01-01", "2026-01-01 12:00:00"])
def test_what_looks_like_a_date_is_text(tmp_path, title):
    """JSON, which every section becomes, has no dates."""
    (tmp_path / "demo.yaml").write_text(f"title: {title}\n")
    assert read_study(tmp_path / "demo.yaml")[0] == {"title": title}


def test_merging_a_list_of_mappings(tmp_path):
    """As YAML says: the first that has a key wins, and the mapping's own keys before all. Lines are of the origin."""
    file = tmp_path / "demo.yaml"
    file.write_text("a: &a {x: 1, y: 1}\nb: &b {y: 2, z: 2, w: 2}\nc:\n  <<: [*a, *b]\n  w: 3\n")
    data, lines = read_study(file)
    assert data["c"] == {"x": 1, "y": 1, "z": 2, "w": 3}
    assert [lines["c", key] for key in "xyzw"] == [f"{file}:{line}" for line in (1, 1, 2, 5)]
    assert lines["c",] == f"{file}:3"
