"""The benchmark of fidelity: rows against the measure itself, and a table written by hand."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm2comp.analysis import measure_fidelity
from llm2comp.model import LLM2Comp
from llm2comp_benchmarks.fidelity import run
from llm2comp_benchmarks.fidelity.plots import plot_fidelity
from llm2comp_benchmarks.fidelity.run import measure_model, read_texts
from llm2comp_benchmarks.fidelity.tables import format_fidelity
from llm2comp_benchmarks.results.read import read_record
from tests.training.tiny import text, write_corpus

ROW: dict[str, Any] = {
    "model": "small",
    "measure": "reconstruction",
    "texts": 3,
    "tokens": 20.4,
    "nothing": 3.0,
    "memory": 2.5,
    "text": 1.0,
    "share": {"value": 0.25, "low": 0.2, "high": 0.3},
    "quartiles": [0.1, 0.2, 0.3],
    "unhelped": 1,
    "shares": [0.2, None, 0.3],
}


@pytest.fixture(scope="module")
def roomy(make_model: Callable[..., LLM2Comp]) -> LLM2Comp:
    return make_model(max_length=300)


def test_rows_are_the_measure(roomy: LLM2Comp) -> None:
    texts = [text(number, 14) for number in range(5)]
    rows = measure_model(roomy, texts, max_tokens=40)
    assert [row["measure"] for row in rows] == ["reconstruction", "continuation"]
    for row in rows:
        fidelities = measure_fidelity(roomy, texts, row["measure"], max_tokens=40)
        assert row["shares"] == [None if one.share is None else round(one.share, 4) for one in fidelities]
        assert row["memory"] == pytest.approx(np.mean([one.memory for one in fidelities]), abs=1e-4)
        assert row["unhelped"] == sum(one.share is None for one in fidelities)
        kept, worth = (
            np.array([one.nothing - getattr(one, name) for one in fidelities]) for name in ("memory", "text")
        )
        if row["share"]:
            assert row["share"]["value"] == pytest.approx(kept.sum() / worth.sum(), abs=1e-4)


def test_texts_too_short_to_be_cut_are_passed_over(roomy: LLM2Comp, tmp_path: Path) -> None:
    path = write_corpus(tmp_path / "texts.jsonl", ["a", text(1, 20), "b", text(2, 20), text(3, 20)])
    assert read_texts(roomy, str(path), 2) == [text(1, 20), text(2, 20)]


def test_the_table() -> None:
    without: dict[str, Any] = {**ROW, "measure": "continuation", "share": None, "quartiles": None}
    head, first, second = format_fidelity({"rows": [ROW, without]}).splitlines()
    assert head.split()[:3] == ["model", "measure", "texts"]
    assert first.split()[:4] == ["small", "reconstruction", "3", "20"]
    assert " ".join(first.split()[4:]) == "3.000 2.500 1.000 0.250 0.200 to 0.300 0.200 1"
    assert second.split()[7:] == ["-", "-", "-", "1"]


def test_the_picture(tmp_path: Path) -> None:
    plot_fidelity({"rows": [ROW, {**ROW, "shares": [5.0, -7.0], "share": None}]}, tmp_path / "it.png")
    assert (tmp_path / "it.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_the_command(saved_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_corpus(tmp_path / "texts.jsonl", [text(number, 20) for number in range(3)])
    options = ["--limit", "2", "--max-tokens", "30", "--model", "small", str(saved_model), "-"]
    monkeypatch.setattr(sys, "argv", ["run", str(path), str(tmp_path / "out.json"), *options])
    run._main()
    record = read_record(tmp_path / "out.json")
    assert [(row["model"], row["reader"], row["texts"]) for row in record["rows"]] == [("small", "its own", 2)] * 2
    assert record["settings"]["texts"] == "texts.jsonl"
