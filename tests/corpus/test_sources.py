"""Ids made for documents: the same for the same source, different for any two sources, on every machine."""

import json
import os
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm2comp.corpus.read import read_corpus
from llm2comp.corpus.sources import Source, default_name, name_sources
from llm2comp.errors import CorpusError, SettingsError

QUICK = settings(max_examples=60, deadline=None, derandomize=True)
ROWS = st.lists(
    st.fixed_dictionaries({"text": st.sampled_from(["", "a", "b"])}, optional={"n": st.integers(0, 2)}), min_size=1
)
NAMES = st.sampled_from(["rows.jsonl", "rows.jsonl-2.jsonl", "a b.jsonl", "C#.jsonl", "C_.jsonl", "é.jsonl"])


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def ids(path: Path, name: str, **options: Any) -> list[str]:
    return [document.id for document in read_corpus(path, name=name, **options)]


@QUICK
@given(first=ROWS, second=ROWS, name=NAMES, other=NAMES, positions=st.booleans())
def test_two_sources_have_no_id_in_common(
    first: list[dict[str, Any]], second: list[dict[str, Any]], name: str, other: str, positions: bool
) -> None:
    with TemporaryDirectory() as root:
        paths = [write(Path(root, "one", name), first), write(Path(root, "two", other), second)]
        sources = name_sources(paths, positions=positions)
        made = [
            ids(path, source.name, ids_are_positions=positions) for path, source in zip(paths, sources, strict=True)
        ]
        assert [len(set(part)) for part in made] == [len(first), len(second)]
        assert not set(made[0]) & set(made[1])
        assert name_sources(paths, sources, positions=positions) == sources
        assert ids(paths[1], sources[1].name, ids_are_positions=positions) == made[1]


@QUICK
@given(rows=ROWS, more=ROWS)
def test_ids_of_rows_depend_on_their_content_only(rows: list[dict[str, Any]], more: list[dict[str, Any]]) -> None:
    with TemporaryDirectory() as root:
        before = ids(write(Path(root, "a", "r.jsonl"), rows), "s")
        after = ids(write(Path(root, "b", "r.jsonl"), more + rows), "s")
    assert set(before) <= set(after)  # rows put in front change no id
    counts = Counter(json.dumps(row, sort_keys=True) for row in rows)
    assert sum(identifier.count("-") == 0 for identifier in before) == len(counts)


def test_equal_rows_are_numbered_and_ids_that_the_corpus_gives_stay(tmp_path: Path) -> None:
    path = write(tmp_path / "r.jsonl", [{"text": "a"}, {"_id": "mine", "text": "a"}, {"text": "a"}, {"text": "b"}])
    first, given_id, second, third = ids(path, "s")
    assert given_id == "mine"
    assert second == f"{first}-2"
    assert first.startswith("s#")
    assert third.startswith("s#")
    assert len(first) == len("s#") + 16


def test_an_id_of_the_corpus_that_is_one_made_for_another_document_is_refused(tmp_path: Path) -> None:
    made = ids(write(tmp_path / "a.jsonl", [{"text": "a"}]), "s")[0]
    with pytest.raises(CorpusError, match="duplicate id"):
        ids(write(tmp_path / "b.jsonl", [{"text": "a"}, {"_id": made, "text": "b"}]), "s")


def test_names_come_from_the_root_and_are_made_unique(tmp_path: Path) -> None:
    for folder in ("A/docs", "B/docs", "docs-2"):
        (tmp_path / folder).mkdir(parents=True)
    paths = [tmp_path / "A" / "docs", tmp_path / "B" / "docs", tmp_path / "docs-2"]
    assert [source.name for source in name_sources(paths)] == ["docs", "docs-2", "docs-2-2"]
    assert default_name("hub:BeIR/scifact:corpus") == "scifact:corpus"
    assert default_name("x/rows.jsonl.gz") == "rows.jsonl"
    assert default_name("x/C# notes") == "C_ notes"
    assert default_name("-") == "stdin"


def test_the_same_path_is_the_same_source_however_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "link").symlink_to("docs")
    monkeypatch.chdir(tmp_path)
    known = name_sources(["docs"])
    assert known[0].root == os.path.realpath(tmp_path / "docs")
    for path in ("./docs", "docs/", "link", tmp_path / "docs"):
        assert name_sources([path], known) == known


def test_a_given_name_is_the_source_wherever_it_lies(tmp_path: Path) -> None:
    known = name_sources([tmp_path / "old"], name="handbook")
    assert name_sources([tmp_path / "new"], known, name="handbook") == [Source("handbook", str(tmp_path / "new"))]
    assert name_sources([tmp_path / "old"], known) == known


@pytest.mark.parametrize("name", ["", " ", "a/b", "a#b", "a\nb", "\udcff"])
def test_names_that_do_not_fit_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(SettingsError, match="source is"):
        name_sources([tmp_path], name=name)


def test_what_cannot_be_meant_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="names one corpus, 2 are given"):
        name_sources([tmp_path / "a", tmp_path / "b"], name="x")
    with pytest.raises(SettingsError, match="with hashes of rows as ids"):
        name_sources([tmp_path], name_sources([tmp_path]), positions=True)
    known = [*name_sources([tmp_path], name="monday"), *name_sources([tmp_path], name="tuesday")]
    with pytest.raises(SettingsError, match="monday, tuesday"):
        name_sources([tmp_path], known)
