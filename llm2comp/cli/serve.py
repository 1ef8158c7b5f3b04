"""`llm2comp serve`: embeddings and indexes over HTTP."""

from pathlib import Path
from typing import Annotated

import typer

from llm2comp import keep_freed_memory
from llm2comp.cli.index_options import name_and_folder
from llm2comp.cli.output import wrong_usage
from llm2comp.errors import SettingsError
from llm2comp.optional import optional_import

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Adds the command `serve`."""
    app.command()(serve)


def serve(
    models: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            metavar="MODEL",
            help="Bundled model by name, folder or Hub id; may be repeated.",
            show_default="the models of the indexes, or llm2comp-tiny",
        ),
    ] = None,
    indexes: Annotated[
        list[str] | None,
        typer.Option("--index", metavar="NAME=DIR", help="Index to search, and its name; may be repeated."),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; another than this machine's own needs a key.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8080,
    api_key_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="File with one key a line, of which each request must carry one."),
    ] = None,
    no_auth: Annotated[bool, typer.Option("--no-auth", help="Serve other machines without a key.")] = False,
    allow_writes: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Index whose documents may be added and deleted; may be repeated."),
    ] = None,
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(metavar="ORIGIN", help="Origin whose pages may call this server; may be repeated."),
    ] = None,
    device: Annotated[
        str | None, typer.Option(metavar="NAME", help="Device of the models: cpu, cuda, cuda:1 ….", show_default="auto")
    ] = None,
    dtype: Annotated[str, typer.Option(help="Precision of the models: auto, float32 or bfloat16.")] = "auto",
    engine: Annotated[str, typer.Option(help="What computes vectors on a CPU: auto, torch or openvino.")] = "auto",
    truncate: Annotated[
        bool, typer.Option("--truncate/--no-truncate", help="Cut texts that are too long, or refuse them.")
    ] = True,
    batch_tokens: Annotated[int, typer.Option(min=1, help="Tokens that are encoded together.")] = 8192,
    queue_tokens: Annotated[int, typer.Option(min=1, help="Tokens that may wait; more requests get status 429.")] = 1
    << 20,
    workers: Annotated[int, typer.Option(min=1, help="Processes, each with its own models.")] = 1,
) -> None:
    """Serve embeddings and indexes over HTTP, as OpenAI and text-embeddings-inference do."""
    optional_import("uvicorn", extra="serve", needed_by="llm2comp serve")
    from llm2comp_serve import ServeSettings
    from llm2comp_serve.run import configure_log, is_loopback, run

    if not is_loopback(host) and api_key_file is None and not no_auth:
        raise typer.BadParameter(
            f"{host} can be reached from other machines: give --api-key-file FILE, or --no-auth to serve anyone"
        )
    folders = dict(map(name_and_folder, indexes or ()))
    if len(folders) < len(indexes or ()):
        raise typer.BadParameter("two indexes have one name")
    with wrong_usage():
        settings = ServeSettings(
            models=tuple(models or (() if folders else ("llm2comp-tiny",))),
            indexes=folders,
            device=device,
            dtype=dtype,
            engine=engine,
            api_keys=_keys(api_key_file) if api_key_file else (),
            cors_origins=tuple(cors_origin or ()),
            writable=frozenset(allow_writes or ()),
            truncate=truncate,
            batch_tokens=batch_tokens,
            queue_tokens=queue_tokens,
        )
    keep_freed_memory()
    configure_log()
    run(settings, host=host, port=port, workers=workers)


def _keys(path: Path) -> tuple[str, ...]:
    """The keys of a file, one a line; blank lines and lines that begin with # are left out.

    Raises:
        SettingsError: The file cannot be read, holds no key, or a line is more than a key.
    """
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SettingsError(f"{path}: the keys cannot be read: {reason}") from error
    keys = {number: line.strip() for number, line in enumerate(lines, 1) if line.strip() and line.strip()[0] != "#"}
    for number, key in keys.items():
        if len(key.split()) > 1:
            raise SettingsError(f"{path}: line {number} has a space in its key; write one key a line, comments after #")
    if not keys:
        raise SettingsError(f"{path}: holds no key; write one a line, such as from `openssl rand -hex 32`")
    return tuple(keys.values())
