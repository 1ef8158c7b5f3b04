"""What a whitening is worth: scores by the texts that it is fitted to, its power, and the components that are kept.

`python -m llm2comp_benchmarks.evaluate.whitening MODEL PAIRS BEIR SPLIT STS OUT.json` measures it on a retrieval set
and on sentence pairs, which should not be those that results are reported on. Every text is encoded once.
"""

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm2comp import LLM2Comp, load
from llm2comp.training.whitening import draw_texts
from llm2comp.training.whitening_settings import WhiteningSettings
from llm2comp.whitening import whitening_matrix
from llm2comp_benchmarks.evaluate.tasks import evaluate
from llm2comp_benchmarks.results.record import result_record, write_record
from llm2comp_benchmarks.results.tables import markdown_table
from llm2comp_benchmarks.tasks.retrieval import RetrievalTask, read_beir
from llm2comp_benchmarks.tasks.sts import StsTask, read_sts

__all__ = ["format_whitening", "measure_whitening"]

_POWERS = (0.25, 0.5, 0.75, 1.0)
_TEXTS = (1_000, 5_000, 20_000)
_DIMENSIONS = (64, 128, 256)
_NAMES = {"pairs": "training pairs", "corpus": "the corpus that is searched", "pairs and corpus": "both"}
_Vectors = NDArray[np.float32]


class _Mapped:
    """The model with a map behind it; what it has encoded once, it remembers.

    Args:
        model: A model without a whitening.
        known: Its vectors by text.
    """

    def __init__(self, model: LLM2Comp, known: dict[str, _Vectors]) -> None:
        self._model, self._known = model, known
        self.map: _Vectors | None = None
        self.dimension: int | None = None

    def plain(self, texts: list[str]) -> _Vectors:
        """Vectors without the map, (texts, dim)."""
        if new := [text for text in dict.fromkeys(texts) if text not in self._known]:
            self._known |= zip(new, self._model.encode_document(new, show_progress_bar=False), strict=True)
        return np.stack([self._known[text] for text in texts])

    def encode_document(self, texts: list[str], **_: Any) -> _Vectors:
        """Vectors of unit length behind the map, shortened to `dimension`."""
        vectors = self.plain(list(texts))
        vectors = (vectors if self.map is None else vectors @ self.map.T)[:, : self.dimension]
        unit: _Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return unit

    encode = encode_query = encode_document


def measure_whitening(model: LLM2Comp, texts: list[str], task: RetrievalTask, pairs: StsTask) -> list[dict[str, Any]]:
    """Rows of `fitted_to`, `texts`, `power`, `dimension`, and the scores `ndcg_at_10` and `cosine_spearman`.

    Args:
        model: The model; a query instruction is not used.
        texts: In random order; those that the whitening of some rows is fitted to.
        task: Its documents are what the whitening of other rows is fitted to.
        pairs: Sentence pairs.
    """
    mapped = _Mapped(model.variant(whitening=None, normalize=True), {})
    corpus = [document.content for document in task.documents()]
    sources = {"pairs": mapped.plain(texts), "corpus": mapped.plain(corpus)}
    sources["pairs and corpus"] = np.concatenate(list(sources.values()))
    whole = model.encoder.get_embedding_dimension()
    rows = []
    for fitted_to, count, power, dimension in _settings(len(texts), len(corpus), whole):
        mapped.map = None if fitted_to is None else whitening_matrix(sources[fitted_to][:count], power)
        mapped.dimension = dimension
        scores = {**evaluate(mapped, task).metrics, **evaluate(mapped, pairs).metrics}
        kept = {name: scores[name] for name in ("ndcg_at_10", "cosine_spearman")}
        rows.append({"fitted_to": fitted_to, "texts": count, "power": power, "dimension": dimension, **kept})
    return rows


def _settings(texts: int, documents: int, whole: int) -> Iterator[tuple[str | None, int, float, int]]:
    """What is measured: source, number of texts, power, dimensions of vectors."""
    yield None, 0, 0.0, whole
    counts = {"pairs": texts, "corpus": documents, "pairs and corpus": texts + documents}
    for source, count in counts.items():
        yield from ((source, count, power, whole) for power in _POWERS)
    for count in _TEXTS:
        if whole <= count < texts:
            yield from (("pairs", count, power, whole) for power in _POWERS[1:3])
    for dimension in _DIMENSIONS:
        yield None, 0, 0.0, dimension
        yield "pairs", texts, 0.75, dimension


def format_whitening(record: dict[str, Any]) -> str:
    """Two tables of nDCG@10: by source of texts and power, and by components that are kept."""
    return f"{_format_powers(record['rows'])}\n\n{_format_dimensions(record['rows'])}"


def _format_powers(rows: list[dict[str, Any]]) -> str:
    whole = max(row["dimension"] for row in rows)
    plain = next(row for row in rows if row["fitted_to"] is None and row["dimension"] == whole)
    lines = [["fitted to", *(f"power {power:g}" for power in _POWERS)]]
    full = [row for row in rows if row["fitted_to"] is not None and row["dimension"] == whole]
    for source, count in dict.fromkeys((row["fitted_to"], row["texts"]) for row in full):
        found = {row["power"]: row["ndcg_at_10"] for row in full if (row["fitted_to"], row["texts"]) == (source, count)}
        scores = (f"{found[power]:.3f}" if power in found else "–" for power in _POWERS)
        lines.append([f"{count:,} texts of {_NAMES[source]}", *scores])
    lines.insert(1, ["nothing: no whitening", *[f"{plain['ndcg_at_10']:.3f}"] * len(_POWERS)])
    return markdown_table(lines)


def _format_dimensions(rows: list[dict[str, Any]]) -> str:
    rows = [row for row in rows if row["fitted_to"] in (None, "pairs")]
    largest = max(row["texts"] for row in rows)
    chosen = [row for row in rows if (row["texts"], row["power"]) in ((0, 0.0), (largest, 0.75))]
    dimensions = sorted({row["dimension"] for row in chosen})
    lines = [["components kept", *map(str, dimensions)]]
    for source, name in ((None, "no whitening"), ("pairs", "whitening")):
        found = {row["dimension"]: row["ndcg_at_10"] for row in chosen if row["fitted_to"] == source}
        lines.append([name, *(f"{found[dimension]:.3f}" for dimension in dimensions)])
    return markdown_table(lines)


def _main(name: str, pairs: str, folder: str, split: str, sts: str, output: str) -> None:
    model, settings = load(name), WhiteningSettings(pairs=(pairs,))
    rows = measure_whitening(model, draw_texts(settings), read_beir(folder, split=split), read_sts(sts))
    facts = {"model": name, "pairs": pairs, "retrieval": folder, "split": split, "sts": sts}
    write_record(output, result_record([], facts) | {"rows": rows})


if __name__ == "__main__":
    _main(*sys.argv[1:])
