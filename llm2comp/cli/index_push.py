"""`llm2comp index push`: an index as a table of a database."""

from typing import TYPE_CHECKING, Annotated

import typer

from llm2comp.cli.index_options import AsJson, Folder
from llm2comp.cli.output import print_json, wrong_usage
from llm2comp.cli.progress import Progress

if TYPE_CHECKING:
    from llm2comp_indexes import PushReport

__all__ = ["note_others", "push"]


def push(
    folder: Folder,
    to: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="URL",
            help="Table to write: postgresql://HOST/DATABASE, qdrant://HOST, qdrant+file:///DIR, lancedb:///DIR or "
            "milvus:///FILE.db, with ?table=NAME (llm2comp without it).",
        ),
    ],
    sync: Annotated[
        bool, typer.Option("--sync", help="Delete rows from the table that the index does not have.")
    ] = False,
    truncate_dim: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Keep the first N numbers of each vector, at unit length.", show_default="all"
        ),
    ] = None,
    float16: Annotated[
        bool, typer.Option("--float16", help="Store vectors as float16 (halfvec in PostgreSQL).")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write an index to a table of a database, to be searched there: `search --store URL`.

    Rows that the table has already are not written again, so a push that was interrupted goes on. At the end the rows
    are counted and all vectors compared with the index.
    """
    from llm2comp_indexes.stores.push import push_index
    from llm2comp_indexes.stores.url import parse_store_url

    with wrong_usage():
        url = parse_store_url(to)
    with Progress("rows pushed") as progress:
        report = push_index(folder, url, sync=sync, truncate_dim=truncate_dim, float16=float16, progress=progress.phase)
    if as_json:
        print_json(report._asdict())
        return
    written = f"{report.added:,} added, {report.changed:,} changed, {report.deleted:,} deleted"
    rate = f", {(report.added + report.changed) / report.write_seconds:,.0f} a second" if report.added else ""
    print(
        f"{report.store}: {report.rows:,} row{'s' * (report.rows != 1)}, vectors of dimension {report.dimension}: "
        f"{written}{rate}, in {report.seconds:.1f} s; counted and compared"
    )
    note_others(report, "index")


def note_others(report: "PushReport", source: str) -> None:
    """Prints how many rows of the table are not in the index or corpus, if any are."""
    if report.others:
        one = report.others == 1
        print(
            f"{report.others:,} row{'' if one else 's'} {'is' if one else 'are'} in the table and not in the {source}; "
            f"--sync deletes {'it' if one else 'them'}"
        )
