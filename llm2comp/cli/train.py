"""`llm2comp train`: one stage, or a recipe from its backbone to its last stage."""

import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llm2comp import keep_freed_memory

if TYPE_CHECKING:
    from llm2comp.training.settings import ModelSettings, StageSettings

__all__ = ["register"]

Output = Annotated[
    Path,
    typer.Option("--output", "-o", metavar="DIR", help="Folder of checkpoints, metrics.jsonl and the finished model/."),
]
Model = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="Model folder; or a causal language model (Hub id or folder) to start from."),
]
Settings = Annotated[
    Path | None,
    typer.Option(
        "--settings", metavar="FILE", help="YAML file with the stage's fields; those left out are the paper's."
    ),
]
Field = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="FIELD=VALUE", help="A field of the stage, such as steps=1000; may be repeated."),
]
Memory = Annotated[int, typer.Option("--memory-tokens", help="k, when starting from a language model.")]
Length = Annotated[
    int,
    typer.Option(
        "--max-length", help="Longest input in tokens, memory tokens included, when starting from a language model."
    ),
]
Rank = Annotated[
    int,
    typer.Option("--rank", help="Rank of the LoRA adapter, when starting from a language model; 0 trains all weights."),
]


def register(app: typer.Typer) -> None:
    """Adds the command group `train`."""
    group = typer.Typer(no_args_is_help=True, help="Train one stage, or a whole recipe.", rich_markup_mode=None)
    for command in (compress, unsupervised, supervised, recipe):
        group.command()(command)
    app.add_typer(group, name="train")


def compress(
    model: Model,
    output: Output,
    corpus: Annotated[
        list[str],
        typer.Option("--corpus", "-c", help="Running text: any corpus that `index build` reads; may be repeated."),
    ],
    heldout: Annotated[str | None, typer.Option(help="Text for the held-out loss; never trained on.")] = None,
    settings: Settings = None,
    field: Field = None,
    memory_tokens: Memory = 8,
    rank: Rank = 16,
    max_length: Length = 1024,
) -> None:
    """Stage 1: memory tokens learn to replace a text when the frozen language model continues it."""
    _stage(
        "compression",
        _of(model, memory_tokens, rank, max_length),
        output,
        settings,
        field,
        {"corpora": corpus, "heldout": heldout},
    )


def unsupervised(
    model: Model,
    output: Output,
    corpus: Annotated[
        list[str], typer.Option("--corpus", "-c", help="Running text whose sentences are used; may be repeated.")
    ],
    settings: Settings = None,
    field: Field = None,
    memory_tokens: Memory = 8,
    rank: Rank = 16,
    max_length: Length = 1024,
) -> None:
    """Stage 2: two dropout views of a sentence move together (SimCSE)."""
    _stage("unsupervised", _of(model, memory_tokens, rank, max_length), output, settings, field, {"corpora": corpus})


def supervised(
    model: Model,
    output: Output,
    pairs: Annotated[
        list[str],
        typer.Option(
            "--pairs", "-p", help="File of query/positive/negative rows, or a folder of them; may be repeated."
        ),
    ],
    settings: Settings = None,
    field: Field = None,
    memory_tokens: Memory = 8,
    rank: Rank = 16,
    max_length: Length = 1024,
) -> None:
    """Stage 3: queries move to their positives, away from hard negatives and from all others of the batch."""
    _stage("supervised", _of(model, memory_tokens, rank, max_length), output, settings, field, {"pairs": pairs})


def recipe(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME|FILE", help="A shipped recipe (llama-2-7b-paper, qwen3-0.6b, llm2comp-tiny) or a YAML file."
        ),
    ],
    output: Output,
    data: Annotated[Path | None, typer.Option(help="Folder that the recipe calls {data}.")] = None,
) -> None:
    """All stages of a recipe in order; run again after an interruption, it goes on where it was."""
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
    """Prints the result, in one of the processes that torchrun started."""
    if os.environ.get("RANK", "0") == "0":
        print(folder)


def _report_to_stdout() -> None:
    """The reports of a training run are its result, so they go to stdout."""
    logger = logging.getLogger("llm2comp.training.loop")
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.handlers, logger.propagate = [handler], False


def _of(model: str, memory_tokens: int, rank: int, max_length: int) -> "ModelSettings":
    from llm2comp.training.settings import AdapterSettings, ModelSettings

    adapter = AdapterSettings(rank=rank, alpha=2 * rank) if rank else None
    return ModelSettings(backbone=model, memory_tokens=memory_tokens, adapter=adapter, max_length=max_length)


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
    from llm2comp.model_folder import CONFIG_FILE
    from llm2comp.training.recipe import run_stage, starting_point

    keep_freed_memory()
    _report_to_stdout()
    assert model.backbone is not None
    trained = Path(model.backbone) if (Path(model.backbone) / CONFIG_FILE).is_file() else None
    _print_once(run_stage(name, settings, output, starting_point(model, model.backbone, trained, settings), model))


def _stage_settings(name: str, file: Path | None, fields: list[str] | None, sources: dict[str, Any]) -> "StageSettings":
    """The paper's settings of the stage, then the file's, then single fields, then the sources."""
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
