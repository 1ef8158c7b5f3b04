"""Classification sets: values worked out by hand, and files that cannot be one."""

import json
from collections import Counter
from pathlib import Path

import pytest

from llm2comp.errors import CorpusError
from llm2comp_benchmarks import evaluate, read_classification
from llm2comp_benchmarks.tasks.classification import _draw
from tests.benchmarks.conftest import WordHashes

HEAD = "text\tlabel\n"
TRAIN = HEAD + "red apple\tfruit\nred plum\tfruit\ngrey flint\tstone\ngrey slate\tstone\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "things"
    root.mkdir()
    (root / "train.tsv").write_text(TRAIN, encoding="utf-8")
    return root


def test_three_of_four_texts_are_recognized(folder: Path) -> None:
    """F1 of fruit: precision 1, recall 1/2; of stone: precision 2/3, recall 1."""
    (folder / "test.tsv").write_text(
        HEAD + "plum\tfruit\ngrey melon\tfruit\nflint\tstone\nslate\tstone\n", encoding="utf-8"
    )
    encoder = WordHashes(512)
    result = evaluate(encoder, read_classification(folder))
    assert result.task == "things"
    assert result.metrics == {"accuracy": 0.75, "f1": pytest.approx((2 / 3 + 4 / 5) / 2)}
    assert (result.samples.values, result.samples.unit, result.samples.ids) == ([1, 0, 1, 1], "example", None)
    assert result.details == {
        "source": str(folder),
        "split": "test",
        "classes": 2,
        "train": 4,
        "texts": 4,
        "samples_per_label": 8,
        "experiments": 10,
        "not_converged": 0,
    }
    json.dumps(result.samples.record(), allow_nan=False)
    assert not encoder.queries  # no text is a query


def test_every_classifier_sees_eight_texts_of_each_class(folder: Path) -> None:
    rows = [f"{label} number {number}\t{label}\n" for number in range(30) for label in ("fruit", "stone")] + [
        "one\trare\n",
        "two\trare\n",
    ]
    (folder / "train.tsv").write_text(HEAD + "".join(rows), encoding="utf-8")
    (folder / "test.tsv").write_text(HEAD + "one\trare\n", encoding="utf-8")
    task = read_classification(folder)
    draws = _draw(task)
    assert all(
        Counter(task.train.labels[text] for text in draw) == {"fruit": 8, "stone": 8, "rare": 2} for draw in draws
    )
    assert len({tuple(sorted(draw)) for draw in draws}) == 10


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        (None, HEAD + "a\tfruit\n", r"train\.tsv: no such file; expected a folder with train\.tsv and train\.tsv"),
        (TRAIN, None, r"test\.tsv: no such file; expected a folder with train\.tsv and test\.tsv"),
        (TRAIN, HEAD, r"test\.tsv: no text in it"),
        (HEAD, HEAD + "a\tfruit\n", r"train\.tsv: no text in it"),
        (
            TRAIN,
            HEAD + "a\tfruit\na\tcloth\n",
            r"test\.tsv:3: no text of the training split is labelled 'cloth', expected one of its 2",
        ),
        (
            TRAIN + "silk\tcloth\n",
            HEAD + "a\tfruit\n",
            r"train\.tsv:6: the only text labelled 'cloth', expected two or more",
        ),
        (HEAD + "a\tb\nc\tb\n", HEAD + "a\tb\n", r"train\.tsv: every text is labelled 'b'"),
        (TRAIN, HEAD + "a\tfruit\nonly\n", r"test\.tsv:3: 1 tab-separated fields, expected 2"),
        (TRAIN, HEAD + "a\t\n", r"test\.tsv:2: the label is empty"),
        (TRAIN, "words\tclass\na\tb\n", r"test\.tsv:1: the columns are 'words, class'; expected .* text, label"),
    ],
)
def test_bad_files(folder: Path, train: str | None, test: str | None, message: str) -> None:
    for name, content in (("train", train), ("test", test)):
        (folder / f"{name}.tsv").unlink(missing_ok=True)
        if content is not None:
            (folder / f"{name}.tsv").write_text(content, encoding="utf-8")
    with pytest.raises(CorpusError, match=message):
        read_classification(folder)
