"""Clustering: sets whose classes are certain to be found, sets whose classes cannot be, and malformed files."""

from pathlib import Path
from typing import Any

import pytest

from llm2comp.errors import CorpusError
from llm2comp_benchmarks import evaluate, read_clustering
from tests.benchmarks.conftest import WordHashes

HEAD = "text\tlabel\n"


@pytest.mark.parametrize(("label", "expected"), [("{topic}", 1), ("{parity}", 0)])
def test_groups_that_agree_with_the_classes_or_say_nothing_of_them(tmp_path: Path, label: str, expected: float) -> None:
    """Every topic has one text, so k-means finds the topics; the parity of the line is spread evenly over them."""
    rows = [
        f"{topic}\t{label.format(topic=topic, parity=number % 2)}\n"
        for topic in ("apple", "granite")
        for number in range(20)
    ]
    (tmp_path / "topics.tsv").write_text(HEAD + "".join(rows), encoding="utf-8")
    result = evaluate(WordHashes(16), read_clustering(tmp_path / "topics.tsv"))
    assert result.metrics == {"v_measure": pytest.approx(expected, abs=1e-3)}
    assert (len(result.samples.values), result.samples.unit) == (10, "split")
    assert (result.details["classes"], result.details["texts"], result.details["texts_per_experiment"]) == (
        2,
        40,
        16384,
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (HEAD, r"test\.tsv: no text in it"),
        (HEAD + "a\tb\nc\tb\n", r"test\.tsv: every text is labelled 'b', expected two"),
        (HEAD + "a\tb\nc\n", r"test\.tsv:3: 1 tab-separated fields, expected 2"),
    ],
)
def test_bad_files(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "test.tsv").write_text(content, encoding="utf-8")
    with pytest.raises(CorpusError, match=message):
        read_clustering(tmp_path / "test.tsv")


def test_names(tmp_path: Path, encoder: Any) -> None:
    folder = tmp_path / "titles"
    folder.mkdir()
    for name in ("test.tsv", "other.tsv"):
        (folder / name).write_text(HEAD + "a\tb\nc\td\n", encoding="utf-8")
    assert [read_clustering(folder / name).name for name in ("test.tsv", "other.tsv")] == ["titles", "other"]
