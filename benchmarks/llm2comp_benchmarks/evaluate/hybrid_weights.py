"""Which weight of vectors in hybrid search: nDCG@10 of an index at each tenth, by scores and by ranks.

`python -m llm2comp_benchmarks.evaluate.hybrid_weights MY.index QUERIES.jsonl QRELS.tsv OUT.json` measures it on judged
questions, which should not be those that results are reported on.
"""

import sys
from collections.abc import Sequence
from typing import Any, get_args

from llm2comp.corpus.read import read_qrels, read_queries
from llm2comp_benchmarks.evaluate.own_index import evaluate_index
from llm2comp_benchmarks.metrics import Qrels
from llm2comp_benchmarks.results.record import result_record, write_record
from llm2comp_benchmarks.results.tables import markdown_table
from llm2comp_indexes import Index, SearchOptions, open_index
from llm2comp_indexes.encoder import encode
from llm2comp_indexes.search.fusion import Fusion

__all__ = ["WEIGHTS", "format_weights", "measure_weights"]

WEIGHTS = tuple(tenth / 10 for tenth in range(11))
"""Shares of the vectors; the words have the rest."""


def measure_weights(
    index: Index, queries: dict[str, str], qrels: Qrels, *, weights: Sequence[float] = WEIGHTS
) -> list[dict[str, Any]]:
    """A row for each fusion and share: `fusion`, `vectors`, `words` and `ndcg_at_10`. Questions are encoded once.

    Args:
        index: An index with BM25, open.
        queries: Questions by id.
        qrels: Grades by question id and document id.
        weights: Shares of the vectors, 0 to 1.

    Raises:
        CorpusError, SettingsError: As `evaluate_index`.
    """
    names = list(queries)
    encoded = encode(index.model.encode_query, [queries[name] for name in names], index.dimension)
    vectors = dict(zip(names, encoded, strict=True))
    rows = []
    for fusion in get_args(Fusion):
        for share in weights:
            pair = (share, round(1 - share, 6))
            options = SearchOptions(mode="hybrid", fusion=fusion, weights=pair)
            result = evaluate_index(index, queries, qrels, mode="hybrid", options=options, vectors=vectors)
            score = result.metrics["ndcg_at_10"]
            rows.append({"fusion": fusion, "vectors": pair[0], "words": pair[1], "ndcg_at_10": score})
    return rows


def format_weights(record: dict[str, Any]) -> str:
    """nDCG@10 of each fusion, a column for each share; the best of a line is bold."""
    shares = sorted({row["vectors"] for row in record["rows"]})
    lines = [["weight of vectors", *(f"{share:g}" for share in shares)]]
    for fusion in dict.fromkeys(row["fusion"] for row in record["rows"]):
        scores = {row["vectors"]: row["ndcg_at_10"] for row in record["rows"] if row["fusion"] == fusion}
        best = max(scores.values())
        marks = {share: "**" if score == best else "" for share, score in scores.items()}
        lines.append([f"by {fusion}", *(f"{marks[share]}{scores[share]:.3f}{marks[share]}" for share in shares)])
    return markdown_table(lines)


def _main(folder: str, queries: str, qrels: str, output: str) -> None:
    with open_index(folder) as index:
        rows = measure_weights(index, read_queries(queries), read_qrels(qrels))
        settings: dict[str, Any] = {"model": index.manifest.model, "fingerprint": index.manifest.fingerprint}
        settings |= {"documents": len(index), "language": index.manifest.options.language}
        settings |= {"queries": queries, "qrels": qrels}
    write_record(output, result_record([], settings) | {"rows": rows})


if __name__ == "__main__":
    _main(*sys.argv[1:])
