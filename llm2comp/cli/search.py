"""`llm2comp search`: answers to one question for people or as JSON, or to a file of queries as a TREC run."""

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from llm2comp import keep_freed_memory
from llm2comp.cli.output import format_hits, print_json, wrong_usage
from llm2comp.cli.progress import Progress

if TYPE_CHECKING:
    from llm2comp_indexes import Effort, Hit, Index, SearchOptions

__all__ = ["register"]

_QUERIES_AT_ONCE = 256


def register(app: typer.Typer) -> None:
    """Adds the command `search`."""
    app.command()(search)


def search(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder that `index build` wrote.")],
    question: Annotated[str | None, typer.Argument(metavar="QUESTION", help="What to look for.")] = None,
    k: Annotated[int, typer.Option("-k", "--top", min=1, max=1000, help="Documents for each question.")] = 10,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the answers as JSON: id, score, title, text, metadata.")
    ] = False,
    queries: Annotated[
        Path | None, typer.Option(help="File of queries: JSON lines of _id and text. Needs --run.")
    ] = None,
    run: Annotated[Path | None, typer.Option(help="TREC run to write the answers of --queries to.")] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Where the model lies now, if not where the index says.")
    ] = None,
    mode: Annotated[
        Literal["dense", "bm25", "hybrid"], typer.Option(help="By vectors, by words, or both (built with --hybrid).")
    ] = "dense",
    where: Annotated[
        str | None,
        typer.Option(metavar="FILTER", help='On metadata, such as \'year >= 2020 and lang in ("en", "de")\'.'),
    ] = None,
    nprobe: Annotated[int | None, typer.Option(min=1, help="Lists to look into, with an ivf index.")] = None,
    ef_search: Annotated[int | None, typer.Option(min=1, help="Candidates to keep, with an hnsw index.")] = None,
    rerank: Annotated[
        int | None, typer.Option(min=1, help="Candidates scored again for each answer, with a compressed index.")
    ] = None,
    weights: Annotated[
        tuple[float, float] | None,
        typer.Option(help="Of the vectors' and the words' ranks in --mode hybrid; left out: 1 1."),
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="FAISS threads; left out: all cores.")] = None,
    device: Annotated[
        Literal["auto", "cpu", "cuda"],
        typer.Option(help="Where FAISS searches: cuda copies the index to all GPUs first."),
    ] = "cpu",
) -> None:
    """Find the documents that answer a question."""
    if (question is None) == (queries is None):
        raise typer.BadParameter('give either a question ("what to look for") or --queries FILE')
    if (queries is None) != (run is None) or (run and as_json):
        raise typer.BadParameter(
            "--queries and --run go together, without --json: llm2comp search DIR --queries queries.jsonl --run "
            "run.trec"
        )
    if question is not None and not question.strip():
        raise typer.BadParameter("the question is empty")
    if weights is not None and mode != "hybrid":
        raise typer.BadParameter("--weights goes with --mode hybrid")
    if mode == "bm25" and (nprobe or ef_search or rerank):
        raise typer.BadParameter("--nprobe, --ef-search and --rerank are about vectors, which --mode bm25 does without")
    from llm2comp_indexes import Effort, SearchOptions, open_index

    with wrong_usage():
        options = SearchOptions(
            mode=mode,
            where=where,
            effort=Effort(nprobe, ef_search, rerank),
            weights=weights or (1.0, 1.0),
            threads=threads,
        )
    keep_freed_memory()
    if queries is not None and run is not None:
        _write_run(lambda: open_index(folder, model=model, device=device), queries, run, k, options)
        return
    with open_index(folder, model=model, device=device) as index:
        _format_idle(index, options.effort)
        [hits] = index.search([question or ""], k, options=options)
    if as_json:
        print_json([hit._asdict() for hit in hits])
    elif hits:
        print(format_hits(hits))
    else:
        print(_format_nothing(index, options), file=sys.stderr)


def _format_idle(index: "Index", effort: "Effort") -> None:
    """Says which of the efforts that were asked for changes nothing."""
    from llm2comp_indexes.structures.types import IndexType

    kinds = {IndexType(segment.type) for segment in index.manifest.segments}
    idle = ["--nprobe"] if effort.nprobe and not any(kind.lists for kind in kinds) else []
    idle += ["--ef-search"] if effort.ef_search and not any(kind.walks_graph for kind in kinds) else []
    idle += ["--rerank"] if effort.rerank and all(kind.family == "flat" for kind in kinds) else []
    if idle:
        types = ", ".join(sorted({segment.type for segment in index.manifest.segments})) or "nothing"
        print(f"{' and '.join(idle)}: without effect, as the index is {types}", file=sys.stderr)


def _format_nothing(index: "Index", options: "SearchOptions") -> str:
    if not len(index):
        return "nothing found: the index is empty"
    if options.where is not None:
        return f"nothing found: no document fits {options.where}" + (
            " and has a word of the question" if options.mode == "bm25" else ""
        )
    return "nothing found: no document has a word of the question"


def _write_run(opened: "Callable[[], Index]", queries: Path, run: Path, k: int, options: "SearchOptions") -> None:
    from llm2comp.corpus.read import read_queries
    from llm2comp.corpus.trec import check_run_id, write_run

    texts = read_queries(queries)
    for name in texts:
        check_run_id("query", name)
    with opened() as index, Progress("queries", total=len(texts)) as progress:
        _format_idle(index, options.effort)
        start = time.perf_counter()
        answers = _answers(index, texts, k, replace(options, by="document"), progress)
        lines = write_run(run, ((query, [(hit.document_id, hit.score) for hit in hits]) for query, hits in answers))
        seconds = time.perf_counter() - start
    print(f"{run}: {lines:,} lines for {len(texts):,} queries, {1000 * seconds / len(texts):.1f} ms a query")


def _answers(
    index: "Index", texts: dict[str, str], k: int, options: "SearchOptions", progress: Progress
) -> Iterator[tuple[str, "list[Hit]"]]:
    names = list(texts)
    for start in range(0, len(names), _QUERIES_AT_ONCE):
        block = names[start : start + _QUERIES_AT_ONCE]
        yield from zip(block, index.search([texts[name] for name in block], k, options=options), strict=True)
        progress.update(start + len(block))
