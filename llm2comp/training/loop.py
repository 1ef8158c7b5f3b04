"""What all stages add to the transformers Trainer: the published schedule, whole checkpoints, metrics as JSON lines, a stop at NaN."""

import json
import logging
import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PrinterCallback, Trainer, TrainingArguments

from llm2comp.errors import SettingsError, TrainingError
from llm2comp.hardware import multiplies_bfloat16
from llm2comp.training.schedule import learning_rate
from llm2comp.training.settings import StageSettings

__all__ = ["METRICS_FILE", "StageMixin", "last_checkpoint", "train_in_float32", "trained_weights", "trainer_arguments"]

METRICS_FILE = "metrics.jsonl"
_COMPLETE = "complete.json"
_WEIGHTS = "trained.safetensors"
_UNREPORTED = ("epoch", "eval_samples_per_second", "eval_steps_per_second", "train_samples_per_second", "train_steps_per_second", "total_flos")
_logger = logging.getLogger(__name__)


def last_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was written to its end; None at the first start. Half-written ones are passed over."""
    complete = [path for path in folder.glob("checkpoint-*") if (path / _COMPLETE).is_file()]
    return max(complete, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def trainer_arguments(settings: StageSettings, output: Path, arguments: type[TrainingArguments] = TrainingArguments, **extra: Any) -> Any:
    """The trainer's arguments for one stage; `extra` goes to the named class as it is."""
    devices = max(1, int(os.environ.get("WORLD_SIZE", "1")))
    per_device, rest = divmod(settings.batch_size, devices * settings.accumulation)
    if rest:
        raise SettingsError(f"batch_size {settings.batch_size} is not a multiple of {devices} devices x {settings.accumulation} accumulation steps")
    extra.setdefault("per_device_eval_batch_size", per_device)
    return arguments(
        output_dir=str(output),
        max_steps=settings.steps,
        per_device_train_batch_size=per_device,
        gradient_accumulation_steps=settings.accumulation,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.clip,
        bf16=multiplies_bfloat16() if settings.precision == "auto" else settings.precision == "bfloat16",
        use_cpu=not torch.cuda.is_available(),
        seed=settings.seed,
        data_seed=settings.seed,
        logging_steps=settings.log_steps,
        save_steps=settings.save_steps,
        eval_steps=settings.eval_steps,
        save_total_limit=2,
        report_to=list(settings.report_to) or "none",
        disable_tqdm=True,
        **extra,
    )


@dataclass
class _Pace:
    """Tokens seen since the last report, for tokens/s."""

    tokens: int = 0
    since: float = 0.0


class StageMixin(Trainer):
    """Mixed into a trainer, before it.

    Args:
        stage: The stage's settings.
        **arguments: To the trainer, as they are.
    """

    def __init__(self, stage: StageSettings, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.stage = stage
        self._pace = _Pace()
        self.remove_callback(PrinterCallback)  # it prints what `log` reports

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> torch.optim.lr_scheduler.LambdaLR:
        """The published schedule as a multiple of each parameter group's own peak."""
        if self.lr_scheduler is None:
            stage = self.stage

            def share(finished: int) -> float:
                rate = learning_rate(
                    finished + 1, total=stage.decay_steps or stage.steps, warmup=stage.warmup_steps, peak=stage.learning_rate, floor=stage.learning_rate_floor
                )
                return rate / stage.learning_rate

            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer or self.optimizer, share)
        return self.lr_scheduler

    def texts_of(self, inputs: dict[str, Any]) -> Sequence[Any]:
        """Ids that tell a user which texts a batch was made of."""
        return inputs.get("ids", ())  # type: ignore[no-any-return]

    def tokens_of(self, inputs: dict[str, Any]) -> int:
        """Tokens of a batch, padding left out."""
        return sum(int(value.sum()) for name, value in inputs.items() if name.endswith("attention_mask"))

    def training_step(self, model: torch.nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Tensor:
        """One forward and backward pass; a loss that is not finite ends the run before it can touch the weights.

        Raises:
            TrainingError: Naming the step and the batch's texts.
        """
        self._pace.tokens += self.tokens_of(inputs)
        texts = list(self.texts_of(inputs))
        loss: Tensor = super().training_step(model, inputs, *args, **kwargs)
        if not math.isfinite(float(loss)):
            raise TrainingError(
                f"the loss is {float(loss)} at step {self.state.global_step + 1} on texts {texts}; the last good checkpoint is untouched: "
                "lower learning_rate or set precision: float32, then start again"
            )
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds tokens/s, writes the entry to metrics.jsonl and to the log."""
        now = time.perf_counter()
        if "loss" in logs and self._pace.since:
            logs["tokens_per_second"] = round(self._pace.tokens / (now - self._pace.since), 1)
        if "loss" in logs or not self._pace.since:
            self._pace = _Pace(0, now)
        self._pace.since += logs.get("eval_runtime", 0.0)  # training tokens per second of training
        super().log(logs, start_time)
        if self.is_world_process_zero():
            entry = {"step": self.state.global_step, **{name: value for name, value in logs.items() if name not in _UNREPORTED}}
            with Path(self.args.output_dir, METRICS_FILE).open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
            _logger.info("%s", "  ".join(f"{name} {value:.5g}" if isinstance(value, float) else f"{name} {value}" for name, value in entry.items()))

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """A checkpoint's weights are those being trained; the frozen backbone is not copied into it."""
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        trained = {name: weight.detach().cpu().contiguous() for name, weight in trained_weights(self.model).items()}
        save_file(trained, folder / _WEIGHTS)

    def _load_from_checkpoint(self, checkpoint: str, model: torch.nn.Module | None = None) -> None:
        path, weights = Path(checkpoint, _WEIGHTS), trained_weights(self.model)
        saved = load_file(path)
        if saved.keys() != weights.keys() or any(saved[name].shape != weight.shape for name, weight in weights.items()):
            raise TrainingError(f"{path} was written by a run with other trained weights; give that run's settings or another output folder")
        with torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(saved[name])

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        if self.is_world_process_zero():
            folder = Path(self.args.output_dir, f"checkpoint-{self.state.global_step}")
            for path in folder.rglob("*"):
                if path.is_file():
                    _flush(path)
            (folder / _COMPLETE).write_text(json.dumps({"step": self.state.global_step}), encoding="utf-8")
            _flush(folder / _COMPLETE)


def trained_weights(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """The parameters that training changes, by name, shared ones once."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def train_in_float32(model: torch.nn.Module) -> None:
    """Gives the trained weights the precision that small updates need, whatever precision they were loaded in."""
    for parameter in trained_weights(model).values():
        parameter.data = parameter.data.float()


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
