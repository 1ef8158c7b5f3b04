"""`--check` of `llm2comp train`: a table of what the stages will take, or all their mistakes."""

import os
from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llm2comp.training.check import StageEstimate
    from llm2comp.training.recipe_file import Recipe
    from llm2comp.training.settings import ModelSettings, StageSettings

__all__ = ["check_recipe", "check_stage"]

_HEADER = ("stage", "updates", "rows each", "passes", "s/update", "time", "memory")


def check_recipe(recipe: "Recipe") -> None:
    """Prints what each stage of a recipe will take.

    Raises:
        SettingsError: All mistakes that can be found without training.
    """
    from llm2comp.training.check import estimate_recipe

    _print_line(_HEADER)
    total = 0.0
    for estimate in estimate_recipe(recipe):
        _print_estimate(estimate)
        total += estimate.total_seconds
    print(f"about {_duration(total)} of training here, without held-out losses and checkpoints")


def check_stage(name: str, settings: "StageSettings", model: "ModelSettings") -> None:
    """Prints what a single stage will take.

    Raises:
        LLM2CompError: A mistake that can be found without training.
    """
    from llm2comp.model_folder import find_trained
    from llm2comp.training.check import estimate_stage
    from llm2comp.training.recipe import check_trainable, starting_point

    check_trainable({name: settings})
    assert model.backbone is not None
    train: Any = None
    if name == "mntp":
        from llm2comp_benchmarks.systems.mntp.encoder import text_mean_of
        from llm2comp_benchmarks.systems.mntp.objective import train_masked as train

        start: Any = text_mean_of(model.backbone, model, precision=settings.precision)
    else:
        start = starting_point(model, model.backbone, find_trained(model.backbone), settings)()
    estimate = estimate_stage(name, start, settings, train=train)  # type: ignore[arg-type]
    _print_line(_HEADER)
    _print_estimate(estimate)


def _print_estimate(estimate: "StageEstimate") -> None:
    from llm2comp.units import format_bytes

    passes = estimate.updates * estimate.batch_size / max(1, estimate.rows)
    memory = f"{format_bytes(estimate.memory)} of {format_bytes(estimate.available)}" if estimate.memory else "?"
    _print_line(
        (
            estimate.name,
            f"{estimate.updates:,}",
            f"{estimate.batch_size:,}",
            "at most 1" if estimate.more_rows and passes <= 1 else "?" if estimate.more_rows else f"{passes:.2g}",
            f"{estimate.seconds:.3g}",
            _duration(estimate.total_seconds),
            memory,
        )
    )
    for note in estimate.notes:
        print(f"    {note}")
    if estimate.memory > estimate.available:
        print("    does not fit: set gradient_checkpointing or accumulation, or lower lengths or batch_size")


def _print_line(cells: tuple[str, ...]) -> None:
    widths = (12, 8, 9, 9, 9, 10, 0)
    if os.environ.get("RANK", "0") == "0":
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip(), flush=True)


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
