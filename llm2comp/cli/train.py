"""`llm2comp train`: one stage of training, or all stages of a recipe."""

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llm2comp import keep_freed_memory
from llm2comp.cli.mine_negatives import NegativesFromLabel, mine_negatives

if TYPE_CHECKING:
    from llm2comp.training.settings import ModelSettings, StageSettings

__all__ = ["register"]

Output = Annotated[
    Path,
    typer.Option(
        "--output", "-o", metavar="DIR", help="Folder for checkpoints, metrics.jsonl and the finished model/."
    ),
]
Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="Model to train further, or language model to start from: bundled one by name, folder, Hub id, GGUF file.",
    ),
]
Settings = Annotated[
    Path | None,
    typer.Option(
        "--settings", metavar="FILE", help="YAML file with fields of the stage; the others have the paper's values."
    ),
]
Field = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="FIELD=VALUE", help="Field of the stage, such as steps=1000; may be repeated."),
]
Memory = Annotated[
    int, typer.Option("--memory-tokens", help="Number of memory tokens, when starting from a language model.")
]
Length = Annotated[
    int,
    typer.Option(
        "--max-length", help="Maximum input in tokens, memory tokens included, when starting from a language model."
    ),
]
Rank = Annotated[
    int,
    typer.Option("--rank", help="Rank of the LoRA adapter, when starting from a language model; 0 trains all weights."),
]

Layers = Annotated[
    int | None,
    typer.Option("--layers", help="Layers of the encoder, when starting from a language model; by default all."),
]


def register(app: typer.Typer) -> None:
    """Adds the command group `train`."""
    group = typer.Typer(no_args_is_help=True, help="Train one stage, or a whole recipe.", rich_markup_mode=None)
    summaries: dict[Callable[..., None], str] = {
        compress: "Stage 1: learn to compress texts into memory tokens.",
        unsupervised: "Stage 2: learn from sentences without labels (SimCSE).",
        supervised: "Stage 3: learn from queries, positives and negatives.",
        recipe: "All stages of a recipe in order, resumable.",
        mine_negatives: "Add hard negatives to training pairs, found with a model.",
    }
    for command, summary in summaries.items():
        group.command(short_help=summary)(command)
    app.add_typer(group, name="train")


def compress(
    model: Model,
    output: Output,
    corpus: Annotated[
        list[str],
        typer.Option(
            "--corpus",
            "-c",
            metavar="CORPUS",
            help="Running text: any corpus that `index build` reads; may be repeated.",
        ),
    ],
    heldout: Annotated[
        str | None, typer.Option(metavar="CORPUS", help="Texts for the held-out loss, which are not trained on.")
    ] = None,
    settings: Settings = None,
    field: Field = None,
    memory_tokens: Memory = 8,
    rank: Rank = 16,
    layers: Layers = None,
    max_length: Length = 1024,
) -> None:
    """Stage 1: memory tokens learn to stand for a text, so that the frozen language model can continue it."""
    _stage(
        "compression",
        _model_settings(model, memory_tokens, rank, layers, max_length),
        output,
        settings,
        field,
        {"corpora": corpus, "heldout": heldout},
    )


def unsupervised(
    model: Model,
    output: Output,
    corpus: Annotated[
        list[str],
        typer.Option(
            "--corpus", "-c", metavar="CORPUS", help="Running text that is split into sentences; may be repeated."
        ),
    ],
    settings: Settings = None,
    field: Field = None,
    memory_tokens: Memory = 8,
    rank: Rank = 16,
    layers: Layers = None,
    max_length: Length = 1024,
) -> None:
    """Stage 2: two encodings of a sentence under different dropout are drawn together (SimCSE)."""
    _stage(
        "unsupervised",
        _model_settings(model, memory_tokens, rank, layers, max_length),
        output,
        settings,
        field,
        {"corpora": corpus},
    )


def supervised(
    model: Model,
    output: Output,
    pairs: Annotated[
        list[str],
        typer.Option(
            "--pairs",
            "-p",
            metavar="FILE|DIR",
            help="File with rows of query, positive and negative, or folder of such files; may be repeated.",
        ),
    ],
    negatives_from_label: NegativesFromLabel = False,
    settings: Settings = None,
    field: Field = None,
    memory_tokens: Memory = 8,
    rank: Rank = 16,
    layers: Layers = None,
    max_length: Length = 1024,
) -> None:
    """Stage 3: queries are drawn to their positives, away from hard negatives and other texts of the batch."""
    _stage(
        "supervised",
        _model_settings(model, memory_tokens, rank, layers, max_length),
        output,
        settings,
        field,
        {"pairs": pairs, "negatives_from_label": negatives_from_label or None},
    )


def recipe(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME|FILE", help="Bundled recipe (llama-2-7b-paper, qwen3-0.6b, llm2comp-tiny) or YAML file."
        ),
    ],
    output: Output,
    data: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder that the recipe calls {data}.")] = None,
) -> None:
    """Run all stages of a recipe in order; after an interruption, run it again to continue."""
    from llm2comp.training.recipe_file import read_recipe
    from llm2comp.training.sources import check_sources

    pairs = output / "pairs"
    checked = read_recipe(name, data=data, pairs=pairs)  # before anything heavy is imported
    check_sources(checked, made={str(pairs), str(output / "long_pairs")})
    from llm2comp.training.recipe import run_recipe

    keep_freed_memory()
    _report_to_stdout()
    _print_once(run_recipe(checked, output))


def _print_once(folder: Path) -> None:
    """Prints the folder, in one of the processes that torchrun started."""
    if os.environ.get("RANK", "0") == "0":
        print(folder)


def _report_to_stdout() -> None:
    """Sends the log of training to stdout, because it is the result of the command."""
    logger = logging.getLogger("llm2comp.training.loop")
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.handlers, logger.propagate = [handler], False


def _model_settings(model: str, memory_tokens: int, rank: int, layers: int | None, max_length: int) -> "ModelSettings":
    from llm2comp.training.settings import AdapterSettings, ModelSettings

    adapter = AdapterSettings(rank=rank, alpha=2 * rank) if rank else None
    return ModelSettings(
        backbone=model, layers=layers, memory_tokens=memory_tokens, adapter=adapter, max_length=max_length
    )


def _stage(
    name: str,
    model: "ModelSettings",
    output: Path,
    file: Path | None,
    fields: list[str] | None,
    sources: dict[str, Any],
) -> None:
    from llm2comp.training.sources import check_sources

    settings = _stage_settings(name, file, fields, sources)  # before anything heavy is imported
    check_sources(settings)
    from llm2comp.model_folder import find_trained
    from llm2comp.training.recipe import run_stage, starting_point

    keep_freed_memory()
    _report_to_stdout()
    assert model.backbone is not None
    trained = find_trained(model.backbone)
    _print_once(run_stage(name, settings, output, starting_point(model, model.backbone, trained, settings), model))


def _stage_settings(name: str, file: Path | None, fields: list[str] | None, sources: dict[str, Any]) -> "StageSettings":
    """The paper's settings of the stage, changed by the file, then by single fields, then by the sources."""
    from llm2comp.errors import SettingsError
    from llm2comp.training.recipe_file import stage_values
    from llm2comp.training.settings import CompressionSettings, ContrastiveSettings
    from llm2comp.training.settings_file import parse_yaml, read_fields, read_text_file, to_settings

    values = stage_values("llama-2-7b-paper", name)
    if file is not None:
        if not file.is_file():
            raise SettingsError(f"no settings file {file}")
        values |= read_fields(read_text_file(file), str(file))
    for field in fields or []:
        key, separator, value = field.partition("=")
        if not separator or not key:
            raise typer.BadParameter(f"{field!r}: give FIELD=VALUE, such as steps=1000", param_hint="--set")
        values[key] = parse_yaml(value, f"--set {field}")
    values |= {key: value for key, value in sources.items() if value is not None}
    kind = CompressionSettings if name == "compression" else ContrastiveSettings
    return to_settings(kind, values, where=f"{name} settings")
