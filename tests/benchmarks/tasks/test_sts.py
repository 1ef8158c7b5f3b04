"""Sentence similarity: files of pairs, and the correlation."""

import gzip
from pathlib import Path
from typing import Any

import pytest

from llm2comp.errors import CorpusError, LLM2CompError
from llm2comp_benchmarks import evaluate, read_sts
from llm2comp_benchmarks.tasks.sts import read_pairs

PAIRS = (
    "sentence1\tsentence2\tscore\n"
    "a b c d\ta b c d\t5\n"
    "a b c d\ta b c x\t4\n"
    "a b c d\ta b x y\t2.5\n"
    "a b c d\ta x y z\t1\n"
    "a b c d\tw x y z\t0\n"
)


def test_a_model_that_agrees_with_people_in_all_but_one_place(tmp_path: Path, encoder: Any) -> None:
    """Word overlap orders the pairs as the scores do; then scores of ranks 1 and 2 are swapped: 1 - 6·(1+1)/(5·24)."""
    file = tmp_path / "pairs.tsv"
    file.write_text(PAIRS, encoding="utf-8")
    assert evaluate(encoder, read_sts(file)).metrics == {"cosine_spearman": pytest.approx(1)}
    file.write_text(PAIRS.replace("\t0\n", "\t1.5\n"), encoding="utf-8")
    assert evaluate(encoder, read_sts(file)).metrics == {"cosine_spearman": pytest.approx(0.9)}
    assert not encoder.queries  # no sentence is a query


def test_the_samples_give_the_metric_again(tmp_path: Path, encoder: Any) -> None:
    from scipy.stats import spearmanr

    (tmp_path / "pairs.tsv").write_text(PAIRS.replace("\t0\n", "\t1.5\n"), encoding="utf-8")
    result = evaluate(encoder, read_sts(tmp_path / "pairs.tsv"))
    assert result.samples.values == pytest.approx([1, 0.75, 0.5, 0.25, 0])  # of four words
    assert result.samples.truth == [5, 4, 2.5, 1, 1.5]
    assert spearmanr(result.samples.values, result.samples.truth).statistic == pytest.approx(
        result.metrics["cosine_spearman"]
    )


def test_names(tmp_path: Path) -> None:
    folder = tmp_path / "stsb"
    folder.mkdir()
    for name in ("test.tsv.gz", "sick.tsv.gz"):
        (folder / name).write_bytes(gzip.compress(PAIRS.encode()))
    assert (read_sts(folder / "test.tsv.gz").name, read_sts(folder / "sick.tsv.gz").name) == ("stsb", "sick")
    assert read_sts(folder / "test.tsv.gz").details == {
        "source": str(folder / "test.tsv.gz"),
        "split": "test",
        "pairs": 5,
    }


def test_columns_are_found_by_name_and_quotes_are_text(tmp_path: Path) -> None:
    (tmp_path / "x.tsv").write_text(
        'id\tscore\tsentence2\tsentence1\n1\t5\t"b\ta "quoted"\n2\t1\td\t\n', encoding="utf-8"
    )
    assert read_pairs(tmp_path / "x.tsv") == (['a "quoted"', ""], ['"b', "d"], [5.0, 1.0])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\tb\t1\n", r"x\.tsv:1: the columns are 'a, b, 1'; expected .* sentence1, sentence2, score"),
        ("", r"x\.tsv:1: the columns are ''"),
        (PAIRS + "only one\n", r"x\.tsv:7: 1 tab-separated fields, expected 3"),
        (PAIRS + "a\tb\tmany\n", r"x\.tsv:7: the score is 'many', expected a number"),
        (PAIRS + "a\tb\tinf\n", r"x\.tsv:7: the score is 'inf'"),
        ("sentence1\tsentence2\tscore\n", r"x\.tsv: 0 pairs"),
        ("sentence1\tsentence2\tscore\na\tb\t1\nc\td\t1\n", r"x\.tsv: 2 pairs with 1 different scores"),
    ],
)
def test_bad_files(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "x.tsv").write_text(text, encoding="utf-8")
    with pytest.raises(CorpusError, match=message):
        read_pairs(tmp_path / "x.tsv")


def test_a_model_that_tells_nothing_apart(tmp_path: Path, encoder: Any) -> None:
    (tmp_path / "x.tsv").write_text("sentence1\tsentence2\tscore\na\ta\t1\nb\tb\t2\n", encoding="utf-8")
    with pytest.raises(LLM2CompError, match=r"x: the model gives all 2 pairs the same cosine, 1\.0000"):
        evaluate(encoder, read_sts(tmp_path / "x.tsv"))
