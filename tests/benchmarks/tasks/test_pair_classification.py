"""Pairs that belong together or not: values worked out by hand, and files that cannot be such a set."""

from pathlib import Path
from typing import Any

import pytest

from llm2comp.errors import CorpusError
from llm2comp_benchmarks import evaluate, read_pair_classification

HEAD = "sentence1\tsentence2\tlabel\n"
PAIRS = HEAD + "a b c d\ta b c d\t1\na b c d\ta b c x\t0\na b c d\ta b x y\t1\na b c d\tw x y z\t0\n"


def test_average_precision(tmp_path: Path, encoder: Any) -> None:
    """Ranked by shared words the labels are 1, 0, 1, 0: precision 1 at the first, 2/3 at the second."""
    (tmp_path / "pairs.tsv").write_text(PAIRS, encoding="utf-8")
    result = evaluate(encoder, read_pair_classification(tmp_path / "pairs.tsv"))
    assert result.metrics == {"cosine_ap": pytest.approx((1 + 2 / 3) / 2), "max_ap": pytest.approx((1 + 2 / 3) / 2)}
    assert result.samples.values == pytest.approx([1, 0.75, 0.5, 0], abs=1e-6)
    assert (result.samples.truth, result.samples.statistic) == ([1, 0, 1, 0], "average_precision")
    assert not encoder.queries


def test_another_distance_may_rank_better(tmp_path: Path, encoder: Any) -> None:
    """Cosine and dot product put the long pair first; by distance the short one, labelled 1, is nearer."""
    rows = "a b c d e f g h i\ta b c d e f g h z\t0\na\ta b\t1\n"
    (tmp_path / "pairs.tsv").write_text(HEAD + rows, encoding="utf-8")
    result = evaluate(encoder, read_pair_classification(tmp_path / "pairs.tsv"))
    assert result.metrics == {"cosine_ap": 0.5, "max_ap": 1.0}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (PAIRS + "a\tb\tyes\n", r"pairs\.tsv:6: the label is 'yes', expected 1 .* or 0"),
        (HEAD + "a\tb\t1\n", r"pairs\.tsv: 1 of 1 pairs are labelled 1, expected some of both"),
        (HEAD, r"pairs\.tsv: 0 of 0 pairs"),
        (PAIRS + "a\tb\n", r"pairs\.tsv:6: 2 tab-separated fields, expected 3"),
    ],
)
def test_bad_files(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "pairs.tsv").write_text(content, encoding="utf-8")
    with pytest.raises(CorpusError, match=message):
        read_pair_classification(tmp_path / "pairs.tsv")
