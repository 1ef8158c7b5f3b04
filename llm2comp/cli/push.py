"""`llm2comp push`: a model uploaded to the Hub."""

from typing import Annotated

import typer

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Adds `push` to the app."""
    app.command(short_help="Upload a model to the Hub of Hugging Face.")(push)


def push(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="Folder that training or `llm2comp export` wrote, or a bundled model."),
    ],
    repository: Annotated[str, typer.Argument(metavar="REPO", help="OWNER/NAME; created if it does not exist.")],
    private: Annotated[bool, typer.Option("--private", help="Create the repository as a private one.")] = False,
    message: Annotated[
        str, typer.Option("--message", "-m", help="Message of the commit.", show_default="the folder's name")
    ] = "",
) -> None:
    """Upload a model to the Hub of Hugging Face, for `llm2comp.load("OWNER/NAME")`.

    The files are checked first. You are logged in by `hf auth login` or the environment variable HF_TOKEN.
    """
    from llm2comp.export.push import push_folder

    print(push_folder(model, repository, private=private, message=message))
