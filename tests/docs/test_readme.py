"""What README.md and the first pages of docs/ show runs as it is written; its claims are those of the result files."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.docs.pages import DOCS, name, python
from tests.paths import RESULTS, ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
HOME = DOCS / "index.md"
SCORES = json.loads((RESULTS / "llm2comp-tiny.json").read_text(encoding="utf-8"))
BM25 = json.loads((RESULTS / "bm25.json").read_text(encoding="utf-8"))


def _run(page: Path, block: int = 0) -> None:
    exec(compile(python(page)[block], name(page), "exec"), {})


def test_the_first_page_is_short_and_in_order() -> None:
    assert len(README.splitlines()) <= 150
    headings = re.findall(r"^## (.+)$", README, re.M)
    expected = ["Install", "Start", "What it is for", "When to use which", "Scores of the bundled model", "More"]
    assert headings == expected
    first_screen = README.splitlines()[:25]
    assert {"make demo", "make test"} <= {line.split("  ")[0] for line in first_screen}
    assert any(line.startswith("![") for line in first_screen)


@pytest.mark.parametrize("page", [ROOT / "README.md", HOME], ids=name)
def test_the_start_prints_what_it_says(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _run(page)
    assert capsys.readouterr().out.strip() == "Remove a file or directory."


@pytest.mark.slow
def test_the_index_example_finds_something(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _run(HOME, 1)
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_the_classes_of_both_frameworks_agree() -> None:
    for framework in ("llama_index.core", "langchain_core"):
        pytest.importorskip(framework, reason="needs the extras llama-index and langchain")
    _run(HOME, 2)


def test_the_page_on_encoding_prints_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    space: dict[str, Any] = {}
    for block in python(DOCS / "encode.md"):
        exec(compile(block, "docs/encode.md", "exec"), space)
    shown = re.findall(r"^print\(.*\)  # (.+)$", (DOCS / "encode.md").read_text(encoding="utf-8"), re.M)
    assert shown
    assert capsys.readouterr().out.splitlines() == shown


def _metrics(record: dict[str, Any]) -> dict[str, float]:
    return {
        f"{task}.{metric}": value
        for task, metrics in record.items()
        if isinstance(metrics, dict)
        for metric, value in metrics.items()
    }


def test_the_scores_shown_are_the_scores_measured() -> None:
    shown = {
        metric: float(value)
        for metric, value in re.findall(r"^\| [^|]+ \| `([^`]+)` \| ([0-9.]+) \|", README, re.MULTILINE)
    }
    measured = _metrics(SCORES)
    assert shown, "the table of scores is gone"
    for metric, value in shown.items():
        assert value == pytest.approx(measured[metric], abs=0.0005), metric


def test_the_bundled_model_is_below_bm25_where_the_page_says_so() -> None:
    ours, bm25 = _metrics(SCORES), _metrics(BM25)
    sets = {"SciFact": "scifact", "Cranfield": "cranfield", "XQuAD": "xquad"}
    sentence = re.search(r"BM25 reaches [^.]+\.[^;]*?XQuAD", README.replace("\n", " "))
    assert sentence
    for title, task in sets.items():
        score = re.search(rf"([0-9.]+) on {title}", sentence[0])
        assert score
        assert float(score[1]) == pytest.approx(bm25[f"{task}.ndcg_at_10"], abs=0.0005)
        assert ours[f"{task}.ndcg_at_10"] < bm25[f"{task}.ndcg_at_10"]


def test_encoding_is_as_much_faster_as_the_page_says() -> None:
    shown = re.search(r"\[([0-9.]+) to ([0-9.]+) times as fast\]", README)
    assert shown
    ratios = [
        entry["speed"]["median"]
        for file in sorted(RESULTS.glob("encode-*.json"))
        for ours, peers in json.loads(file.read_text(encoding="utf-8"))["ratios"].items()
        for peer, entry in peers.items()
        if peer == ours.replace("llm2comp", "sentence-transformers")
    ]
    assert ratios
    assert (round(min(ratios), 1), round(max(ratios), 1)) == (float(shown[1]), float(shown[2]))
