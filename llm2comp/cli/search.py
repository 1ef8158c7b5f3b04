"""`llm2comp search`: results of one question as text or JSON, or of a file of queries as a TREC run."""

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from llm2comp import keep_freed_memory
from llm2comp.cli.hits import describe_score, format_hits, format_times
from llm2comp.cli.index_options import (
    Candidates,
    Engine,
    Fusion,
    Header,
    ModelDevice,
    Quotes,
    Rescore,
    Weights,
    check_fusion,
    encoder_options,
)
from llm2comp.cli.interactive import ask, check_fields
from llm2comp.cli.output import print_json, wrong_usage
from llm2comp.cli.progress import Progress

if TYPE_CHECKING:
    from llm2comp_indexes import Effort, Hit, Index, SearchOptions, StoreIndex

__all__ = ["register"]

_QUERIES_PER_BATCH = 256


def register(app: typer.Typer) -> None:
    """Adds the command `search`."""
    app.command()(search)


def search(
    folder: Annotated[
        str | None, typer.Argument(metavar="DIR", help="Folder that `index build` wrote; not with --store.")
    ] = None,
    question: Annotated[
        str | None,
        typer.Argument(metavar="QUESTION", help="Text to search for; without it, questions are read one by one."),
    ] = None,
    k: Annotated[int, typer.Option("-k", "--top", min=1, max=1000, help="Number of results per question.")] = 10,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the results as JSON: id, score, title, text, metadata.")
    ] = False,
    queries: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="File of queries: JSON lines with _id and text, or .csv, .tsv, .parquet; needs --run."
        ),
    ] = None,
    header: Header = None,
    quotes: Quotes = None,
    run: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the results of --queries to this file, as a TREC run.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="MODEL",
            help="The index's model, if it has moved: bundled model by name, folder or Hub id.",
            show_default="as the index says",
        ),
    ] = None,
    mode: Annotated[
        Literal["dense", "bm25", "hybrid"],
        typer.Option(help="By vectors, by words, or by both (if built with --hybrid)."),
    ] = "dense",
    where: Annotated[
        str | None,
        typer.Option(
            metavar="FILTER",
            help='Filter on metadata, such as \'year >= 2020 and lang in ("en", "de")\'; a field name that is not one '
            "word stands in backticks.",
        ),
    ] = None,
    group_by: Annotated[
        Literal["document"] | None,
        typer.Option(help="In an index of chunks: one result per document, its best chunk.", show_default="chunks"),
    ] = None,
    show: Annotated[
        str | None, typer.Option(metavar="FIELD,FIELD", help="Metadata to show with each result.", show_default="none")
    ] = None,
    neighbours: Annotated[
        int,
        typer.Option(min=0, max=100, help="Chunks to show before and after each result."),
    ] = 0,
    nprobe: Annotated[int | None, typer.Option(min=1, help="Lists to search, in an ivf index.")] = None,
    ef_search: Annotated[int | None, typer.Option(min=1, help="Candidates to keep, in an hnsw index.")] = None,
    rerank: Annotated[
        int | None, typer.Option(min=1, help="Candidates re-scored per result, in a compressed index.")
    ] = None,
    fusion: Fusion = None,
    weights: Weights = None,
    rescore: Rescore = None,
    candidates: Candidates = None,
    threads: Annotated[int | None, typer.Option(min=1, help="FAISS threads.", show_default="all cores")] = None,
    device: Annotated[
        Literal["auto", "cpu", "cuda"],
        typer.Option(help="Where FAISS searches; cuda: on all GPUs, to which the index is copied."),
    ] = "cpu",
    store: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Search a table that `index push` wrote, instead of DIR: postgresql://HOST/DATABASE …"
        ),
    ] = None,
    engine: Engine = None,
    model_device: ModelDevice = None,
) -> None:
    """Find the documents that answer a question."""
    if store is not None:
        if question is not None:
            raise typer.BadParameter('give either DIR or --store: llm2comp search --store URL "what to look for"')
        question, folder = folder, None
        _check_for_store(
            mode=mode,
            rescore=rescore,
            nprobe=nprobe,
            rerank=rerank,
            threads=threads,
            device=device,
            neighbours=neighbours,
        )
    elif folder is None:
        raise typer.BadParameter("Missing argument 'DIR': the folder of an index, or --store URL")
    if question is not None and queries is not None:
        raise typer.BadParameter('give either a question ("what to look for") or --queries FILE')
    if question is None and queries is None and (as_json or neighbours):
        raise typer.BadParameter('--json and --neighbours go with a question: llm2comp search DIR "what to look for"')
    if (queries is None) != (run is None) or (run and as_json):
        raise typer.BadParameter(
            "--queries and --run go together, without --json: llm2comp search DIR --queries queries.jsonl --run "
            "run.trec"
        )
    if run and (group_by or neighbours):
        raise typer.BadParameter("--group-by and --neighbours go with a question; a run has documents anyway")
    if (header, quotes) != (None, None) and queries is None:
        raise typer.BadParameter("--header, --no-header, --quotes and --no-quotes go with --queries")
    if question is not None and not question.strip():
        raise typer.BadParameter("the question is empty")
    check_fusion(mode, fusion, weights)
    if candidates is not None and rescore is None:
        raise typer.BadParameter("--candidates goes with --rescore maxsim")
    if candidates is not None and candidates < k:
        raise typer.BadParameter(f"--candidates {candidates} are fewer than --top {k}: only candidates are results")
    if mode == "bm25" and (nprobe or ef_search or rerank):
        raise typer.BadParameter("--nprobe, --ef-search and --rerank are for vectors, which --mode bm25 does not use")
    from llm2comp_indexes import Effort, SearchOptions

    with wrong_usage():
        options = SearchOptions(
            mode=mode,
            where=where,
            effort=Effort(nprobe, ef_search, rerank),
            fusion=fusion or "scores",
            weights=weights,
            by=group_by or "row",
            threads=threads,
            rescore=rescore,
            candidates=candidates,
        )
    open_it = _opener(store, folder, device, model=model, encoder=encoder_options(engine=engine, device=model_device))
    fields = tuple(filter(None, map(str.strip, (show or "").split(","))))
    keep_freed_memory()
    if queries is not None and run is not None:
        from llm2comp.corpus.read import read_queries

        texts = read_queries(queries, header=header, quotes=quotes)
        _write_run(open_it, texts, run, k, options)
        return
    with open_it() as index:
        _report_unused(index, options.effort)
        check_fields(index, fields)
        if question is None:
            ask(index, options, k, fields=fields, explain_nothing=_explain_nothing)
            return
        if options.uses_model and len(index):
            index.model  # noqa: B018  # loaded now: its time is not that of the search
        start = time.perf_counter()
        [hits] = index.search([question], k, options=options)
        seconds = time.perf_counter() - start
        around = [index.surrounding(hit, neighbours) for hit in hits] if neighbours else None  # type: ignore[union-attr]
        nothing = "" if hits else _explain_nothing(index, options)
    if as_json:
        print_json([hit._asdict() for hit in hits] if around is None else list(map(_to_json, hits, around)))
    elif hits:
        print(format_hits(hits, around, question=question, fields=fields))
        if sys.stdout.isatty():
            score = describe_score(options)
            print(f"     {format_times(seconds, index.encode_seconds)}; score: {score}")
    else:
        print(nothing, file=sys.stderr)


def _check_for_store(*, mode: str, rescore: str | None, device: str, neighbours: int, **numbers: int | None) -> None:
    """Checks that no option is given that only an index on disk has.

    Raises:
        typer.BadParameter: One is.
    """
    if mode != "dense":
        raise typer.BadParameter(f"--mode {mode}: a store is searched by vectors; words are searched in an index (DIR)")
    unfit = [f"--{name}" for name, value in numbers.items() if value is not None]
    unfit += (
        ["--rescore"] * (rescore is not None) + ["--device"] * (device != "cpu") + ["--neighbours"] * (neighbours > 0)
    )
    if unfit:
        raise typer.BadParameter(f"{unfit[0]} is for an index (DIR), not for --store")


def _opener(
    store: str | None, folder: str | None, device: "Literal['auto', 'cpu', 'cuda']", **opening: Any
) -> "Callable[[], Index | StoreIndex]":
    """Function that opens the table of a store, or the index in a folder.

    Raises:
        typer.BadParameter: The address is of no store.
    """
    from llm2comp_indexes import open_index, open_store_index
    from llm2comp_indexes.stores.url import parse_store_url

    if store is None:
        return lambda: open_index(str(folder), device=device, **opening)
    with wrong_usage():
        url = parse_store_url(store)
    return lambda: open_store_index(url, **opening)


def _to_json(hit: "Hit", around: "list[Hit]") -> dict[str, Any]:
    """The result with the chunks before and after it, as lists of id, title, text and metadata."""
    place = next(place for place, chunk in enumerate(around) if chunk is hit)
    others = [{name: value for name, value in chunk._asdict().items() if name != "score"} for chunk in around]
    return hit._asdict() | {"before": others[:place], "after": others[place + 1 :]}


def _report_unused(index: "Index | StoreIndex", effort: "Effort") -> None:
    """Prints on stderr which of the given options has no effect on an index of this type."""
    from llm2comp_indexes import StoreIndex
    from llm2comp_indexes.structures.types import IndexType

    if isinstance(index, StoreIndex):
        return
    kinds = {IndexType(segment.type) for segment in index.manifest.segments}
    unused = ["--nprobe"] if effort.nprobe and not any(kind.lists for kind in kinds) else []
    unused += ["--ef-search"] if effort.ef_search and not any(kind.walks_graph for kind in kinds) else []
    unused += ["--rerank"] if effort.rerank and all(kind.family == "flat" for kind in kinds) else []
    if unused:
        types = ", ".join(sorted({segment.type for segment in index.manifest.segments})) or "nothing"
        print(f"{' and '.join(unused)}: without effect, as the index is {types}", file=sys.stderr)


def _explain_nothing(index: "Index | StoreIndex", options: "SearchOptions") -> str:
    if not len(index):
        return "nothing found: the index is empty"
    if options.where is not None:
        by_words = options.mode == "bm25" or (options.mode == "hybrid" and not options.fused_weights[0])
        return f"nothing found: no document fits {options.where}" + " and has a word of the question" * by_words
    return "nothing found: no document has a word of the question"


def _write_run(
    open_it: "Callable[[], Index | StoreIndex]",
    texts: dict[str, str],
    run: Path,
    k: int,
    options: "SearchOptions",
) -> None:
    from llm2comp.corpus.trec import check_run_id, write_run

    for name in texts:
        check_run_id("query", name)
    with open_it() as index, Progress("queries", total=len(texts)) as progress:
        _report_unused(index, options.effort)
        if options.uses_model and len(index):
            index.model  # noqa: B018  # loaded now: its time is not that of the queries
        start = time.perf_counter()
        answers = _answers(index, texts, k, replace(options, by="document"), progress)
        lines = write_run(run, ((query, [(hit.document_id, hit.score) for hit in hits]) for query, hits in answers))
        seconds = time.perf_counter() - start
    contained = " to search and write" if not options.uses_model else " to encode, search and write"
    print(f"{run}: {lines:,} lines for {len(texts):,} queries, {1000 * seconds / len(texts):.1f} ms a query{contained}")


def _answers(
    index: "Index | StoreIndex", texts: dict[str, str], k: int, options: "SearchOptions", progress: Progress
) -> Iterator[tuple[str, "list[Hit]"]]:
    names = list(texts)
    for start in range(0, len(names), _QUERIES_PER_BATCH):
        block = names[start : start + _QUERIES_PER_BATCH]
        yield from zip(block, index.search([texts[name] for name in block], k, options=options), strict=True)
        progress.update(start + len(block))
