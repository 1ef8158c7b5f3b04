"""`llm2comp bench ablation`: which pretext makes the better encoder."""

from pathlib import Path
from typing import Annotated

import typer

from llm2comp import keep_freed_memory

__all__ = ["ablation"]


def ablation(
    name: Annotated[str, typer.Argument(metavar="NAME|FILE", help="Shipped ablation (tiny, smollm2), or a YAML file.")],
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
        list[str] | None,
        typer.Option(help="Only this pretext or baseline; may be repeated.", show_default="all of the plan"),
    ] = None,
    analysis: Annotated[bool, typer.Option(help="Describe the embeddings of each model too.")] = True,
    memory: Annotated[
        bool | None,
        typer.Option(help="Only the numbers of memory tokens that are compared, or none of them.", show_default="both"),
    ] = None,
    forecast: Annotated[
        bool,
        typer.Option(
            "--forecast", help="Train and write nothing: print what each run of the plan takes, and what is left of it."
        ),
    ] = False,
) -> None:
    """Train all pretexts of a plan from one backbone, on the same texts, updates and seeds, and measure each model.

    Training starts at once; the time left is logged after each step, from what has run in the folder of the models.
    `--forecast` runs a few small steps instead where nothing has run yet, for some minutes. After an interruption the
    same command continues. Two processes can share the work if each has its own seeds or pretexts. `llm2comp report`
    makes tables and plots of the result files, of a plan that is not finished too.
    """
    from llm2comp_benchmarks.ablation import run

    keep_freed_memory()
    choice = run.Choice(seeds or (), pretexts or (), memory)
    if forecast:
        print(run.forecast(name, output, results, data, choice=choice, analysis=analysis).table())
        return
    run.ablate(name, output, results, data, choice=choice, analysis=analysis)
