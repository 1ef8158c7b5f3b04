"""`llm2comp train whitening`: a map of a model's embeddings, fitted to texts without labels."""

from pathlib import Path
from typing import Annotated

import typer

from llm2comp import keep_freed_memory
from llm2comp.cli.output import wrong_usage
from llm2comp.cli.progress import Progress

__all__ = ["whitening"]


def whitening(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Trained model: bundled one by name, folder, or Hub id.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder of the new model.")],
    corpus: Annotated[
        list[str] | None,
        typer.Option(
            "--corpus",
            "-c",
            metavar="CORPUS",
            help="Texts such as those to be searched: any corpus that `index build` reads; may be repeated.",
        ),
    ] = None,
    pairs: Annotated[
        list[str] | None,
        typer.Option(
            "--pairs",
            "-p",
            metavar="FILE|DIR",
            help="Training pairs, or folder of such files, whose queries and positives are taken; may be repeated.",
        ),
    ] = None,
    texts: Annotated[int, typer.Option(help="Number of texts, drawn at random from all.")] = 20_000,
    power: Annotated[
        float,
        typer.Option(help="How far the spreads of components are evened out: above 0 (not at all) to 1 (wholly)."),
    ] = 0.75,
    seed: Annotated[int, typer.Option(help="Seed of the draw.")] = 0,
) -> None:
    """Even out the directions of a model's embeddings, as fits your texts: no labels, no training, minutes.

    The new model has the same weights and one linear map behind them. Its vectors are others, so indexes are built
    again; the first components are the best ones to keep (`--truncate-dim`).
    """
    from llm2comp.training.whitening import draw_texts, fit_whitening
    from llm2comp.training.whitening_settings import WhiteningSettings

    with wrong_usage():
        settings = WhiteningSettings(
            corpora=tuple(corpus or ()), pairs=tuple(pairs or ()), texts=texts, power=power, seed=seed
        )
    from llm2comp.training.sources import check_sources

    check_sources(settings)
    from llm2comp import load
    from llm2comp.model_folder import CONFIG_FILE, find_folder
    from llm2comp.model_saving import check_replaceable, save_whitened

    keep_freed_memory()
    check_replaceable(output, CONFIG_FILE, "llm2comp model")
    with Progress("reading") as progress:
        drawn = draw_texts(settings)
        matrix = fit_whitening(load(model), drawn, power=power, progress=progress.phase)
    save_whitened(find_folder(model), output, matrix)
    print(output)
