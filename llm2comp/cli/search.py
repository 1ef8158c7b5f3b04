"""`llm2comp search`: answers to one question for people or as JSON, or to a file of queries as a TREC run."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llm2comp.cli.output import Progress, format_hits, print_json

if TYPE_CHECKING:
    from llm2comp_indexes import Hit, Index

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
) -> None:
    """Find the documents that answer a question."""
    if (question is None) == (queries is None):
        raise typer.BadParameter('give either a question ("what to look for") or --queries FILE')
    if (queries is None) != (run is None) or (run and as_json):
        raise typer.BadParameter("--queries and --run go together, without --json: llm2comp search DIR --queries queries.jsonl --run run.trec")
    if queries is not None and run is not None:
        _write_run(folder, queries, run, k, model)
        return
    from llm2comp_indexes import open_index

    with open_index(folder, model=model) as index:
        [hits] = index.search([question or ""], k)
    if as_json:
        print_json([hit._asdict() for hit in hits])
    else:
        print(format_hits(hits))


def _write_run(folder: Path, queries: Path, run: Path, k: int, model: str | None) -> None:
    from llm2comp.corpus import read_queries
    from llm2comp_indexes import open_index
    from llm2comp_indexes.trec import check_run_id, write_run

    texts = read_queries(queries)
    for name in texts:
        check_run_id("query", name)
    with open_index(folder, model=model) as index, Progress("queries") as progress:
        start = time.perf_counter()
        lines = write_run(run, _answers(index, texts, k, progress))
        seconds = time.perf_counter() - start
    print(f"{run}: {lines:,} lines for {len(texts):,} queries, {1000 * seconds / len(texts):.1f} ms a query")


def _answers(index: "Index", texts: dict[str, str], k: int, progress: Progress) -> Iterator[tuple[str, "list[Hit]"]]:
    names = list(texts)
    for start in range(0, len(names), _QUERIES_AT_ONCE):
        block = names[start : start + _QUERIES_AT_ONCE]
        yield from zip(block, index.search([texts[name] for name in block], k), strict=True)
        progress.update(start + len(block))
