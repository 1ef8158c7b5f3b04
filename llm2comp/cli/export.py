"""`llm2comp export`: a model as a plain sentence-transformers folder."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from llm2comp import keep_freed_memory
from llm2comp.bundled_models import DEFAULT_MODEL
from llm2comp.units import format_bytes

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Adds `export` to the app."""
    app.command(short_help="Write a plain sentence-transformers model.")(export)


def export(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help=f"Folder or Hub id; {DEFAULT_MODEL}: the bundled model.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to create.")],
    dtype: Annotated[
        Literal["float32", "bfloat16"],
        typer.Option(help="Precision of the written weights; bfloat16 is half the size."),
    ] = "float32",
    device: Annotated[
        str, typer.Option(metavar="NAME", help="Device that compares the two models: cpu, cuda, cuda:1 …")
    ] = "cpu",
) -> None:
    """Write a plain sentence-transformers model, which loads without this package, and check its vectors.

    The adapter is merged, and the memory tokens become part of the vocabulary and the tokenizer. OUT is created only
    after the exported model was loaded and its vectors were found equal to the original's.
    """
    import llm2comp
    from llm2comp.export import check_target

    check_target(out)
    keep_freed_memory()
    report = llm2comp.load(model, device=device, dtype="float32").export(out, dtype=dtype)
    print(f"{out}: a plain sentence-transformers model, {dtype}, {format_bytes(report.size)}")
    print(
        f"loaded and compared on {report.texts} texts: same tokens, vectors equal to {report.difference:.0e}",
        end="",
    )
    print(f" before rounding, cosine {report.cosine:.5f} or more after it" if dtype != "float32" else "")
    if report.attention == "eager":
        print(
            "it loads with eager attention, because transformers' faster implementation gives other results for this "
            "language model"
        )
    print(
        "special-token strings such as </s> inside a text stay text if the model is loaded through transformers; "
        "programs that read tokenizer.json themselves take them for tokens"
    )
