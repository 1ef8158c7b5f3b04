"""`llm2comp export`: a model as a plain sentence-transformers folder."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from llm2comp import keep_freed_memory
from llm2comp.units import format_bytes

__all__ = ["register"]

_BUNDLED = "llm2comp-tiny"


def register(app: typer.Typer) -> None:
    """Adds `export` to the app."""
    app.command()(export)


def export(
    model: Annotated[str, typer.Argument(help=f"Model folder or Hub id; {_BUNDLED} is the bundled model.")],
    out: Annotated[Path, typer.Argument(help="A new folder.")],
    dtype: Annotated[
        Literal["float32", "bfloat16"],
        typer.Option(help="Precision of the weights written; bfloat16 is half the size."),
    ] = "float32",
    device: Annotated[
        str, typer.Option(help="Where the vectors of both models are compared: cpu, cuda, cuda:1 …")
    ] = "cpu",
) -> None:
    """Write a plain sentence-transformers model, which loads anywhere without this package, and check that its vectors are the same.

    The adapter is merged and the memory tokens become part of vocabulary and tokenizer. OUT appears once the folder has
    been loaded again and its vectors compared with the original's, or not at all.
    """
    import llm2comp
    from llm2comp.export import check_target

    check_target(out)
    keep_freed_memory()
    bundled = model == _BUNDLED and not Path(model).exists()
    report = llm2comp.load(None if bundled else model, device=device, dtype="float32").export(out, dtype=dtype)
    print(f"{out}: a plain sentence-transformers model, {dtype}, {format_bytes(report.size)}")
    print(
        f"loaded again and compared on {report.texts} texts: same tokens, vectors equal to {report.difference:.0e}",
        end="",
    )
    print(f" before rounding, cosine {report.cosine:.5f} or more after it" if dtype != "float32" else "")
    if report.attention == "eager":
        print(
            "it is loaded with eager attention, because transformers' faster one would compute something else for "
            "this language model"
        )
    print(
        "special-token strings such as </s> inside a text stay text for everything that loads it through transformers; "
        "programs that read tokenizer.json by themselves take them for tokens"
    )
