"""Arguments of the Trainer that follow from the settings of a stage, and the published learning-rate schedule."""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK, get_available_reporting_integrations

from llm2comp.backbone.hardware import multiplies_bfloat16
from llm2comp.errors import SettingsError
from llm2comp.training.run_folder import processes
from llm2comp.training.settings import StageSettings

__all__ = [
    "division_problems",
    "in_bfloat16",
    "learning_rate",
    "rows_at_once",
    "tracker_problems",
    "trainer_arguments",
]

_TRACKER_EXTRAS = ("tensorboard", "wandb")


def trainer_arguments(
    settings: StageSettings, output: Path, arguments: type[TrainingArguments] = TrainingArguments, **extra: Any
) -> Any:
    """Trainer arguments of a stage.

    Args:
        settings: The stage's settings.
        output: Folder of checkpoints and metrics.
        arguments: Class of the arguments.
        **extra: Further fields of that class, passed on unchanged.

    Raises:
        SettingsError: If a batch cannot be divided among the devices, or a tracker is not installed.
    """
    if problems := [*division_problems(settings), *tracker_problems(settings)]:
        raise SettingsError(*problems)
    per_device = rows_at_once(settings)
    extra.setdefault("per_device_eval_batch_size", per_device)
    processes()  # first, so that the trainer gets process groups with this package's timeout
    result = arguments(
        output_dir=str(output),
        max_steps=settings.steps,
        per_device_train_batch_size=per_device,
        gradient_accumulation_steps=settings.accumulation,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.clip,
        bf16=in_bfloat16(settings),
        use_cpu=not torch.cuda.is_available(),
        seed=settings.seed,
        data_seed=settings.seed,
        logging_steps=settings.log_steps,
        logging_nan_inf_filter=False,
        save_steps=settings.save_steps,
        eval_steps=settings.eval_steps,
        report_to=list(settings.report_to) or "none",
        disable_tqdm=True,
        **extra,
    )
    if result.n_gpu > 1:
        # Several devices need torchrun: the trainer's threads would have to split batches that are lists of texts.
        result._n_gpu = 1
    return result


def in_bfloat16(settings: StageSettings) -> bool:
    """Whether matrix products of a stage are in bfloat16 on this machine."""
    return multiplies_bfloat16() if settings.precision == "auto" else settings.precision == "bfloat16"


def _devices() -> int:
    """Number of processes of this run."""
    return max(1, int(os.environ.get("WORLD_SIZE", "1")))


def rows_at_once(settings: StageSettings) -> int:
    """Rows of a batch on one device, of one of its passes if it is accumulated."""
    return max(1, settings.batch_size // (_devices() * settings.accumulation))


def division_problems(settings: StageSettings) -> list[str]:
    """A message if a batch cannot be divided among the devices."""
    if settings.batch_size % (_devices() * settings.accumulation) == 0:
        return []
    return [
        f"batch_size {settings.batch_size} is not a multiple of {_devices()} devices x {settings.accumulation} "
        "accumulation steps"
    ]


def tracker_problems(settings: StageSettings) -> list[str]:
    """Messages about trackers in `report_to` that are unknown or not installed."""
    available = get_available_reporting_integrations()
    return [_tracker_problem(name, available) for name in settings.report_to if name not in available]


def _tracker_problem(name: str, available: Sequence[str]) -> str:
    if name not in INTEGRATION_TO_CALLBACK:  # no command that would install whatever has this name
        return f"report_to names {name}, which is no tracker; known: {', '.join(sorted(INTEGRATION_TO_CALLBACK))}"
    package = f'"llm2comp[{name}]"' if name in _TRACKER_EXTRAS else name
    installed = ", ".join(available) or "none"
    return f"report_to names {name}; installed here: {installed}. To install it: pip install {package}"


def learning_rate(update: int, *, total: int, warmup: int, peak: float, floor: float) -> float:
    """Learning rate of an update: a logarithmic warm-up, then a linear decay to a floor.

    Args:
        update: Number of the update, from 1.
        total: Updates until the end of the decay.
        warmup: Updates until the peak; 0 or 1 starts at the peak.
        peak: Highest learning rate.
        floor: Learning rate of the first two updates and after the decay.

    Source: DeepSpeed's WarmupDecayLR as configured in the published LLM2Comp runs.
    """
    position = update - 2
    if warmup > 1 and position < warmup:
        share = 0.0 if position < 0 else math.log(position + 1) / math.log(warmup)
    else:
        share = max(0.0, (total - position) / (total - warmup)) if position >= warmup else 1.0
    return floor + (peak - floor) * min(share, 1.0)
