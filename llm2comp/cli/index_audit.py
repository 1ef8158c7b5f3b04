"""`llm2comp index audit`: how much of the texts of an index a language model can read from their memories."""

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Literal

import typer

from llm2comp import keep_freed_memory
from llm2comp.cli.index_options import AsJson, Folder, OnlyModelDevice
from llm2comp.cli.output import print_json, printable, wrong_usage
from llm2comp.cli.progress import Progress

__all__ = ["audit"]


def audit(
    folder: Folder,
    reader: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="Language model that reads (folder, Hub id, GGUF file, wheel:NAME==VERSION/FILE): the one that the "
            "model was made from.",
            show_default="the model's own",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", metavar="MODEL", help="Model of the memories.", show_default="as the index says"),
    ] = None,
    sample: Annotated[int, typer.Option(min=1, metavar="N", help="Number of rows, drawn at random.")] = 200,
    all_rows: Annotated[bool, typer.Option("--all", help="Read all rows.")] = False,
    measure: Annotated[
        Literal["reconstruction", "continuation"],
        typer.Option(help="Read the text itself after its memory, or its second half after the memory of the first."),
    ] = "reconstruction",
    max_tokens: Annotated[
        int | None,
        typer.Option(min=2, metavar="N", help="Cut texts after N tokens.", show_default="what the model reads at once"),
    ] = None,
    lowest: Annotated[int, typer.Option(min=0, metavar="N", help="Show the N rows that are kept least.")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the draw.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="DIR",
            help="Folder for audit.json, fidelity.tsv and histogram.png; created if need be.",
        ),
    ] = None,
    device: OnlyModelDevice = None,
    as_json: AsJson = False,
) -> None:
    """Show how much of its texts a language model can read from their memories, and which texts a vector cannot hold.

    The share kept is (loss after nothing - loss after the memory) / (loss after nothing - loss after the text).
    """
    from llm2comp.optional import check_matplotlib
    from llm2comp_indexes import AuditSettings, audit_index
    from llm2comp_indexes.audit.report import audit_json, format_audit, output_folder, write_audit

    if out is not None:
        check_matplotlib()
    with wrong_usage():
        settings = AuditSettings(
            sample=None if all_rows else sample, seed=seed, measure=measure, reader=reader, max_tokens=max_tokens
        )
    keep_freed_memory()
    with output_folder(out) if out is not None else nullcontext():
        with Progress("reading") as progress:
            done = audit_index(folder, settings, model=model, device=device, progress=progress.phase)
        if as_json:
            print_json(audit_json(done, lowest=lowest))
        else:
            print(format_audit(done, lowest=lowest, printable=printable))
        for file in write_audit(done, out, lowest=lowest) if out is not None else []:
            print(file, file=sys.stderr)
