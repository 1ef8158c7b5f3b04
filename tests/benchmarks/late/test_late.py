"""The benchmark of late interaction: rankings, bytes and table computed plainly; the published table is its file's."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from llm2comp.corpus.documents import Document
from llm2comp_benchmarks.late.measure import compare_set
from llm2comp_benchmarks.report.late import late_table
from llm2comp_benchmarks.report.late_plot import plot_late
from llm2comp_benchmarks.report.pages import fill_text, read_results
from llm2comp_benchmarks.tasks.retrieval import RetrievalTask
from llm2comp_indexes.format.memory_vectors import MemoryForm
from llm2comp_indexes.options import MEMORY_KINDS
from tests.memory_encoder import MemoryWordEncoder
from tests.paths import RESULTS, ROOT
from tests.word_encoder import WORDS

pytest.importorskip("pytrec_eval", reason="needs the extra eval")
DOCUMENTS = [Document(f"d{row}", "", " ".join(np.random.default_rng(row).choice(WORDS, 6))) for row in range(30)]
QUERIES = {"a": "bread moon rain", "b": "oven tides stone"}


def first(query: str, kept: int, kind: str, candidates: int) -> str:
    """The best of the candidates by the first tokens, one product at a time."""
    encoder = MemoryWordEncoder()
    nearest = np.argsort(
        -(encoder.encode_query([document.text for document in DOCUMENTS]) @ encoder.encode_query([query])[0]),
        kind="stable",
    )[:candidates]
    [asked] = encoder.memory_of([query])

    def score(row: int) -> float:
        [memory] = encoder.memory_of([DOCUMENTS[row].text])
        if kind == "int8":
            memory = np.round(memory * 127) / 127
        if kind == "binary":
            memory = np.where(memory >= 0, 1, -1) / 32**0.5
        return sum(max(float(one @ other) for other in memory[:kept]) for one in asked[:kept])

    return DOCUMENTS[max(nearest.tolist(), key=score)].id


def test_every_way_is_measured(tmp_path: Path) -> None:
    ways = {
        "maxsim float32 3": (3, "float32", 3 * 32 * 4),
        "maxsim float32 2": (2, "float32", 2 * 32 * 4),
        "maxsim float32 1": (1, "float32", 32 * 4),
        "maxsim int8 3": (3, "int8", 3 * 32),
        "maxsim binary 3": (3, "binary", 3 * 4),
    }
    for name, (kept, kind, size) in ways.items():
        # judged relevant is what this way should rank first, so that only it can have nDCG of 1 by design
        qrels = {query: {first(text, kept, kind, 12): 1} for query, text in QUERIES.items()}
        systems = compare_set(
            RetrievalTask("t", lambda: DOCUMENTS, QUERIES, qrels), MemoryWordEncoder(), tmp_path, candidates=12
        )
        assert [system.name for system in systems] == ["dense", *ways]
        [found] = [system for system in systems if system.name == name]
        assert found.values == [1.0, 1.0]
        assert found.row["ndcg_at_10"] == 1.0
        assert found.row["bytes_per_document"] == size
    memory = MemoryWordEncoder().memory_of([document.content for document in DOCUMENTS])
    pairs = [one[i] @ one[j] for one in memory for i in range(3) for j in range(3) if i != j]
    assert systems[0].row["cosine_of_memory_tokens"] == pytest.approx(np.mean(pairs), abs=1e-3)


def test_the_table_by_hand() -> None:
    facts = {"bytes_per_document": 1024, "ms_per_query": 0.1}
    record = {
        "rows": [
            {"set": "cranfield", "system": "dense", "ndcg_at_10": 0.25, **facts},
            {"set": "cranfield", "system": "m", "ndcg_at_10": 0.75, "tokens": 1, "vectors": "int8", **facts},
        ],
        "samples": {"cranfield dense": {"values": [0.0, 0.5] * 20}, "cranfield m": {"values": [0.5, 1.0] * 20}},
    }
    assert late_table(record).splitlines()[2:] == [
        "| Cranfield | vectors | 0.2500 | – | – | 1,024 | 0.10 |",
        "| Cranfield | MaxSim, the first token, int8 | 0.7500 | +0.5000 | +0.5000 to +0.5000 | +1,024 | 0.10 |",
    ]


def test_the_table_of_several_models_by_hand() -> None:
    facts = {"set": "cranfield", "ms_per_query": 0.1}
    rows, samples = [], {}
    for model, score in (("control", 0.25), ("maxsim", 0.5)):
        for system, gain in (("dense", 0.0), ("float", 0.25), ("int8", 0.25)):
            of_system = {} if system == "dense" else {"tokens": 8, "vectors": system}
            size = 2304 if system == "dense" else 4608
            row = {"model": model, "system": system, "ndcg_at_10": score + gain, "bytes_per_document": size}
            rows.append(row | of_system | facts)
            samples[f"{model} cranfield {system}"] = {"values": [score + gain] * 40}
    assert late_table({"rows": rows, "samples": samples}).splitlines()[2:] == [
        "| Cranfield | control | vectors | 0.2500 | – | – | 2,304 | 0.10 |",
        "| Cranfield | control | MaxSim, 8 tokens, int8 | 0.5000 | +0.2500 | +0.2500 to +0.2500 | +4,608 | 0.10 |",
        "| Cranfield | maxsim | vectors | 0.5000 | +0.2500 | +0.2500 to +0.2500 | 2,304 | 0.10 |",
        "| Cranfield | maxsim | MaxSim, 8 tokens, int8 | 0.7500 | +0.5000 | +0.5000 to +0.5000 | +4,608 | 0.10 |",
    ]


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra plot")
    plot_late(json.loads((RESULTS / "late-small.json").read_text(encoding="utf-8")), tmp_path / "it.png")
    header = (tmp_path / "it.png").read_bytes()[:24]
    assert header[:8] == b"\x89PNG\r\n\x1a\n"
    assert int.from_bytes(header[16:20]) == 900, "pixels wide"


def test_the_published_table_is_the_published_result() -> None:
    page = (ROOT / "docs" / "late-interaction.md").read_text(encoding="utf-8")
    assert "<!-- table bench late-small -->" in page
    assert fill_text(page, read_results(RESULTS), ROOT / "docs") == page
    rows = json.loads((RESULTS / "late-small.json").read_text(encoding="utf-8"))["rows"]
    assert {row["set"] for row in rows} == {"xquad", "cranfield"}


def test_bytes_on_the_page() -> None:
    page = (ROOT / "docs" / "late-interaction.md").read_text(encoding="utf-8")
    for kind in MEMORY_KINDS:
        size = MemoryForm(kind, 8, 576).row_bytes
        assert re.search(rf"^\| `{kind}` \|.*\| {size:,} \|$", page, re.M)
