"""`llm2comp eval --index`: the quality of an index on disk, by judged questions."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from llm2comp import keep_freed_memory
from llm2comp.units import format_ms

if TYPE_CHECKING:
    from llm2comp.encoder_options import EncoderOptions
    from llm2comp_indexes import SearchOptions

__all__ = ["evaluate_index_command"]


def evaluate_index_command(
    folder: Path,
    queries: Path | None,
    qrels: Path | None,
    ranking: "SearchOptions",
    model: str | None,
    encoder: "EncoderOptions",
    json_file: Path | None,
    run_out: Path | None,
    *,
    header: bool | None,
    quotes: bool | None,
    overwrite: bool,
) -> None:
    """Scores the index's answers to the questions, and prints the table.

    Raises:
        typer.BadParameter: Questions or judgements are not given.
    """
    if queries is None or qrels is None:
        raise typer.BadParameter("--index needs --queries FILE and --qrels FILE")
    from llm2comp.corpus.read import read_qrels, read_queries
    from llm2comp_benchmarks import write_run
    from llm2comp_benchmarks.evaluate.own_index import evaluate_index
    from llm2comp_benchmarks.results.record import format_tables
    from llm2comp_benchmarks.results.store import ResultStore
    from llm2comp_indexes import open_index

    texts, judgements = read_queries(queries, header=header, quotes=quotes), read_qrels(qrels, quotes=quotes)
    store = ResultStore(json_file, overwrite=overwrite)
    keep_freed_memory()
    with open_index(folder, model=model, encoder=encoder) as index:
        store.start(_settings(index, ranking), keep=False)
        result = evaluate_index(index, texts, judgements, mode=ranking.mode, options=ranking)
    store.add(result)
    print(format_tables([result]))
    details = result.details
    asked = f"{details['queries']:,} question{'s' * (details['queries'] != 1)}"
    spent = f"{format_ms(details['ms_per_query'])} each for {details['ms_contain']}"
    ordered = f", the first {details['candidates']:,} ordered by MaxSim" if ranking.rescore else ""
    print(f"{ranking.mode}{ordered}: {asked}, {spent}; loading the model is not counted", file=sys.stderr)
    if run_out:
        write_run(run_out, result.run, tag="llm2comp")


def _settings(index: Any, ranking: "SearchOptions") -> dict[str, Any]:
    manifest = index.manifest
    fused = {"fusion": ranking.fusion, "weights": list(ranking.fused_weights)} if ranking.mode == "hybrid" else {}
    return {
        "model": manifest.model,
        "system": "llm2comp index",
        "fingerprint": manifest.fingerprint,
        "dimension": manifest.dimension,
        "encoder": manifest.encoder.to_json(),
        "type": [segment.type for segment in manifest.segments],
        "store": manifest.options.store,
        "chunks": manifest.options.describe_chunks() or None,
        "language": manifest.options.language,
        "search": {"mode": ranking.mode, **fused, "rescore": ranking.rescore, "candidates": ranking.candidates},
    }
