"""`llm2comp mcp`: indexes as tools for assistants, on standard input and output."""

from typing import Annotated

import typer

from llm2comp import keep_freed_memory
from llm2comp.cli.index_options import name_and_folder
from llm2comp.cli.output import wrong_usage
from llm2comp.optional import optional_import

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Adds the command `mcp`."""
    app.command()(mcp)


def mcp(
    indexes: Annotated[
        list[str], typer.Option("--index", metavar="NAME=DIR", help="Index to search, and its name; may be repeated.")
    ],
    models: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            metavar="MODEL",
            help="A model of the indexes, if it has moved: bundled model by name, folder or Hub id.",
            show_default="as the indexes say",
        ),
    ] = None,
) -> None:
    """Offer indexes to an assistant as tools, by the Model Context Protocol on standard input and output."""
    for module in ("mcp", "fastapi"):
        optional_import(module, extra="serve", needed_by="llm2comp mcp")
    from llm2comp_serve.mcp_server import create_mcp
    from llm2comp_serve.service import Service
    from llm2comp_serve.settings import ServeSettings

    with wrong_usage():
        settings = ServeSettings(models=tuple(models or ()), indexes=dict(map(name_and_folder, indexes)))
    keep_freed_memory()
    service = Service(settings)
    service.load()
    create_mcp(service).run("stdio")
