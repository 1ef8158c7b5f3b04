"""`llm2comp search`: answers to one question for people or as JSON, or to a file of queries as a TREC run."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from llm2comp.cli.output import Progress, format_hits, print_json

if TYPE_CHECKING:
    from llm2comp_indexes import Hit, Index, SearchOptions

__all__ = ["register"]

_QUERIES_AT_ONCE = 256


def register(app: typer.Typer) -> None:
    """Adds the command `search`."""
    app.command()(search)


def search(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder that `index build` wrote.")],
    question: Annotated[str | None, typer.Argument(metavar="QUESTION", help="What to look for.")] = None,
    k: Annotated[int, typer.Option("-k", "--top", min=1, help="Documents for each question.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answers as JSON: id, score, title, text, metadata.")] = False,
    queries: Annotated[Path | None, typer.Option(help="File of queries: JSON lines of _id and text. Needs --run.")] = None,
    run: Annotated[Path | None, typer.Option(help="TREC run to write the answers of --queries to.")] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="Where the model lies now, if not where the index says.")] = None,
    mode: Annotated[Literal["dense", "bm25", "hybrid"], typer.Option(help="By vectors, by words, or both (built with --hybrid).")] = "dense",
    where: Annotated[str | None, typer.Option(metavar="FILTER", help='On metadata, such as \'year >= 2020 and lang in ("en", "de")\'.')] = None,
    nprobe: Annotated[int | None, typer.Option(min=1, help="Lists to look into, with an ivf index.")] = None,
    ef_search: Annotated[int | None, typer.Option(min=1, help="Candidates to keep, with an hnsw index.")] = None,
    rerank: Annotated[int | None, typer.Option(min=1, help="Candidates scored again for each answer, with a compressed index.")] = None,
    weights: Annotated[tuple[float, float], typer.Option(help="Of the vectors' and the words' ranks in --mode hybrid.")] = (1.0, 1.0),
    threads: Annotated[int | None, typer.Option(min=1, help="FAISS threads; left out: all cores.")] = None,
) -> None:
    """Find the documents that answer a question."""
    if (question is None) == (queries is None):
        raise typer.BadParameter('give either a question ("what to look for") or --queries FILE')
    if (queries is None) != (run is None) or (run and as_json):
        raise typer.BadParameter("--queries and --run go together, without --json: llm2comp search DIR --queries queries.jsonl --run run.trec")
    from llm2comp_indexes import Effort, SearchOptions, open_index

    options = SearchOptions(mode=mode, where=where, effort=Effort(nprobe, ef_search, rerank), weights=weights, threads=threads)
    if queries is not None and run is not None:
        _write_run(folder, queries, run, k, model, options)
        return
    with open_index(folder, model=model) as index:
        [hits] = index.search([question or ""], k, options=options)
    if as_json:
        print_json([hit._asdict() for hit in hits])
    else:
        print(format_hits(hits))


def _write_run(folder: Path, queries: Path, run: Path, k: int, model: str | None, options: "SearchOptions") -> None:
    from llm2comp.corpus import read_queries
    from llm2comp_indexes import open_index
    from llm2comp_indexes.trec import check_run_id, write_run

    texts = read_queries(queries)
    for name in texts:
        check_run_id("query", name)
    with open_index(folder, model=model) as index, Progress("queries") as progress:
        start = time.perf_counter()
        lines = write_run(run, _answers(index, texts, k, replace(options, by="document"), progress))
        seconds = time.perf_counter() - start
    print(f"{run}: {lines:,} lines for {len(texts):,} queries, {1000 * seconds / len(texts):.1f} ms a query")


def _answers(index: "Index", texts: dict[str, str], k: int, options: "SearchOptions", progress: Progress) -> Iterator[tuple[str, "list[Hit]"]]:
    names = list(texts)
    for start in range(0, len(names), _QUERIES_AT_ONCE):
        block = names[start : start + _QUERIES_AT_ONCE]
        yield from zip(block, index.search([texts[name] for name in block], k, options=options), strict=True)
        progress.update(start + len(block))
