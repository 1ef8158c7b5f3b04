"""`llm2comp train mine-negatives`: training pairs with hard negatives that a model finds."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from llm2comp import keep_freed_memory
from llm2comp.cli.index_options import AsJson
from llm2comp.cli.output import print_json, wrong_usage
from llm2comp.cli.progress import Progress
from llm2comp.errors import CorpusError

if TYPE_CHECKING:
    from llm2comp.training.negatives.files import FileCounts

__all__ = ["NegativesFromLabel", "mine_negatives"]


NegativesFromLabel = Annotated[
    bool,
    typer.Option(
        "--negatives-from-label",
        help="Make passages with a label or score of 0 negatives of their query; otherwise they are refused.",
    ),
]


def mine_negatives(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="Model that ranks the passages: bundled one by name, folder, or Hub id."),
    ],
    pairs: Annotated[
        list[str],
        typer.Argument(metavar="PAIRS", help="Files of training pairs, or folders of such files."),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Folder of the new files, one for each that is read.")
    ],
    negatives: Annotated[
        int, typer.Option("--negatives", "-n", help="Negatives of a row, those that it has already included.")
    ] = 4,
    margin: Annotated[
        float,
        typer.Option("--margin", help="Largest similarity of a negative, relative to that of the query's positive."),
    ] = 0.95,
    from_rank: Annotated[
        int, typer.Option("--from-rank", help="First rank considered; above 1, the most similar are skipped.")
    ] = 1,
    to_rank: Annotated[int, typer.Option("--to-rank", help="Last rank considered.")] = 100,
    sampling: Annotated[
        str, typer.Option("--sampling", metavar="top|random", help="Take the most similar ones, or any.")
    ] = "top",
    seed: Annotated[int, typer.Option("--seed", help="Seed of random sampling.")] = 0,
    limit: Annotated[
        int | None, typer.Option("--limit", help="Rows of a file that are read, from its beginning; by default all.")
    ] = None,
    max_length: Annotated[
        int | None,
        typer.Option("--max-length", help="Maximum input in tokens, memory tokens included; by default the model's."),
    ] = None,
    same_source: Annotated[
        bool,
        typer.Option(
            "--same-source",
            help="Take passages of rows with the same `source`, otherwise left out as cut from one text.",
        ),
    ] = False,
    negatives_from_label: NegativesFromLabel = False,
    as_json: AsJson = False,
) -> None:
    """Write training pairs again, with hard negatives: passages of other rows that a model finds similar to the query.

    Passages nearly as similar as the positive are left out, because they probably are answers too. After an
    interruption, run it again to continue with the next file.
    """
    from llm2comp.training.negatives.settings import MiningSettings

    with wrong_usage():
        settings = MiningSettings(
            negatives=negatives,
            margin=margin,
            from_rank=from_rank,
            to_rank=to_rank,
            sampling=cast("Literal['top', 'random']", sampling),
            seed=seed,
            limit=limit,
            same_source=same_source,
            negatives_from_label=negatives_from_label,
        )
    for source in pairs:
        if not Path(source).exists():
            raise CorpusError(f"{source}: no such file or folder")
    from llm2comp import load
    from llm2comp.training.negatives.files import mine_hard_negatives

    keep_freed_memory()
    encoder = load(model)
    if max_length is not None:
        encoder.max_seq_length = max_length
    report = _ignore_file if as_json else _print_file
    with Progress("reading") as progress:
        counts = mine_hard_negatives(encoder, pairs, output, settings, progress=progress.phase, on_file=report)
    if as_json:
        files = {name: count._asdict() for name, count in counts.items()}
        print_json({"folder": str(output), "model": encoder.fingerprint, "files": files})
    else:
        print(output)


def _print_file(name: str, counts: "FileCounts") -> None:
    from tqdm import tqdm

    tqdm.write(  # above the bar, if there is one
        f"{name}: {counts.rows:,} rows, {counts.with_negatives:,} with negatives; {counts.mined:,} negatives mined, "
        f"{counts.too_close:,} passages dropped as too close to the positive",
        file=sys.stdout,
    )
    sys.stdout.flush()


def _ignore_file(name: str, counts: "FileCounts") -> None:
    """Prints nothing: the counts of all files are printed as JSON at the end."""
