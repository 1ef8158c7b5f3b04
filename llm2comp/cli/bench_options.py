"""Options that several commands of `llm2comp bench` have, and what all print."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

__all__ = ["Corpora", "Json", "Model", "Precision", "Threads", "Workdir", "parse_sizes", "report_record"]

Corpora = Annotated[
    list[str] | None,
    typer.Option(
        metavar="CORPUS",
        help="Corpus that texts are drawn from, as `index build` reads it; may be repeated.",
        show_default="python-docs:all",
    ),
]
Json = Annotated[
    Path | None,
    typer.Option("--json", metavar="FILE", help="Write all numbers, settings, versions and hardware to this file."),
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model", "-m", metavar="MODEL", help="Bundled model by name, folder or Hub id.", show_default="llm2comp-tiny"
    ),
]
Precision = Annotated[
    Literal["auto", "float32", "bfloat16"],
    typer.Option(help="Precision of llm2comp; auto: float32, and bfloat16 too if the processor supports it natively."),
]
Threads = Annotated[int, typer.Option(min=1, help="Threads of every process.")]
Workdir = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", help="Folder for models and texts, which are removed at the end.", show_default="a temporary one"
    ),
]


def parse_sizes(option: str, value: str) -> tuple[int, ...]:
    """The whole numbers in the value of an option."""
    if not all(size.isascii() and size.isdigit() for size in value.split()):
        raise typer.BadParameter(f"{option} {value!r}: give whole numbers separated by spaces")
    return tuple(map(int, value.split()))


def report_record(record: dict[str, Any], show: Callable[[dict[str, Any]], str], json_file: Path | None) -> None:
    """Prints a record as `show` formats it, and writes it to a file where one is named."""
    import json

    from llm2comp.atomic import write_output

    print(show(record))
    if json_file:
        write_output(json_file, [json.dumps(record, indent=2, ensure_ascii=False), "\n"])
