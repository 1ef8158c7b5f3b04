"""What a whitening is worth: each row has the scores of the model that is whitened so."""

import pytest
import torch

from llm2comp.corpus.documents import Document
from llm2comp.model import LLM2Comp
from llm2comp.whitening import whitening_matrix
from llm2comp_benchmarks.evaluate import whitening
from llm2comp_benchmarks.evaluate.tasks import evaluate
from llm2comp_benchmarks.evaluate.whitening import format_whitening, measure_whitening
from llm2comp_benchmarks.tasks.retrieval import RetrievalTask
from llm2comp_benchmarks.tasks.sts import SentencePairs, StsTask
from tests.training.tiny import text

pytest.importorskip("pytrec_eval", reason="needs the extra eval")

DOCUMENTS = [Document(f"d{number}", "", text(number, 12)) for number in range(70)]
TASK = RetrievalTask(
    "made-up",
    lambda: iter(DOCUMENTS),
    {f"q{number}": text(number, 5) for number in range(20)},
    {f"q{number}": {f"d{number}": 1} for number in range(20)},
)
FIRST, SECOND = [text(row, 6) for row in range(9)], [text(row // 3, 6) for row in range(9)]
PAIRS = StsTask("pairs", SentencePairs(FIRST, SECOND, [float(row % 3) for row in range(9)]), {})


def test_each_row_is_an_evaluation(model: LLM2Comp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whitening, "_TEXTS", (80,))
    monkeypatch.setattr(whitening, "_DIMENSIONS", (16,))
    texts = [text(1000 + number, 9) for number in range(100)]
    rows = measure_whitening(model, texts, TASK, PAIRS)
    assert len(rows) == 1 + 3 * 4 + 2 + 2
    plain = model.variant(query_instruction="")
    corpus = [document.content for document in DOCUMENTS]
    sources = {"pairs": texts, "corpus": corpus, "pairs and corpus": texts + corpus}
    for row in (rows[0], rows[2], rows[7], rows[12], rows[13], *rows[-2:]):
        fitted = plain
        if row["fitted_to"] is not None:
            vectors = plain.encode(sources[row["fitted_to"]][: row["texts"]])
            fitted = plain.variant(whitening=torch.from_numpy(whitening_matrix(vectors, row["power"])))
        fitted.truncate_dim = None if row["dimension"] == 64 else row["dimension"]
        expected = {**evaluate(fitted, TASK).metrics, **evaluate(fitted, PAIRS).metrics}
        fitted.truncate_dim = None
        for name in ("ndcg_at_10", "cosine_spearman"):
            assert row[name] == pytest.approx(expected[name], abs=0.02)


def test_tables() -> None:
    def row(source: str | None, texts: int, power: float, dimension: int, score: float) -> dict[str, object]:
        return {"fitted_to": source, "texts": texts, "power": power, "dimension": dimension, "ndcg_at_10": score}

    rows = [
        row(None, 0, 0.0, 64, 0.5),
        row("pairs", 90, 0.5, 64, 0.6),
        row("pairs", 90, 0.75, 64, 0.625),
        row("pairs", 70, 0.75, 64, 0.55),
        row("corpus", 70, 0.75, 64, 0.65),
        row(None, 0, 0.0, 16, 0.3),
        row("pairs", 90, 0.75, 16, 0.4),
    ]
    first, second = format_whitening({"rows": rows}).split("\n\n")
    assert first.splitlines()[2:] == [
        "| nothing: no whitening | 0.500 | 0.500 | 0.500 | 0.500 |",
        "| 90 texts of training pairs | – | 0.600 | 0.625 | – |",
        "| 70 texts of training pairs | – | – | 0.550 | – |",
        "| 70 texts of the corpus that is searched | – | – | 0.650 | – |",
    ]
    assert second.splitlines()[0] == "| components kept | 16 | 64 |"
    assert second.splitlines()[2:] == ["| no whitening | 0.300 | 0.500 |", "| whitening | 0.400 | 0.625 |"]
