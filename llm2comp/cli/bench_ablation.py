"""`llm2comp bench ablation`: which pretext makes the better encoder."""

from pathlib import Path
from typing import Annotated, Any

import typer

from llm2comp import keep_freed_memory

__all__ = ["ablation"]


def ablation(
    name: Annotated[str, typer.Argument(metavar="NAME|FILE", help="Shipped ablation (tiny), or a YAML file.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder of the models.")],
    results: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the result files.")],
    data: Annotated[
        Path,
        typer.Option(
            metavar="DIR", help="Folder with the texts of the recipe, and with the sets to measure on in eval/."
        ),
    ],
    seeds: Annotated[
        list[int] | None, typer.Option(help="Only this seed; may be repeated.", show_default="all of the plan")
    ] = None,
    pretexts: Annotated[
        list[str] | None, typer.Option(help="Only this pretext; may be repeated.", show_default="all of the plan")
    ] = None,
    analysis: Annotated[bool, typer.Option(help="Describe the embeddings of each model too.")] = True,
    memory: Annotated[
        bool | None,
        typer.Option(help="Only the numbers of memory tokens that are compared, or none of them.", show_default="both"),
    ] = None,
) -> None:
    """Train all pretexts of a plan from one backbone, on the same texts, updates and seeds, and measure each model.

    After an interruption the same command continues. Two processes can share the work if each has its own seeds or
    pretexts. `llm2comp report` makes tables and plots of the result files.
    """
    from llm2comp_benchmarks.ablation.run import ablate

    keep_freed_memory()
    chosen: dict[str, Any] = {"seeds": seeds or (), "pretexts": pretexts or ()}
    ablate(name, output, results, data, **chosen, analysis=analysis, memory=memory)
