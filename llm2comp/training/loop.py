"""What all stages add to the transformers Trainer.

The published learning-rate schedule, checkpoints that are complete or ignored, metrics as JSON lines, and an end of the
run at the first loss, gradient or weight that is not finite.
"""

import logging
import math
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.utils.data import DataLoader, SequentialSampler
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from llm2comp.errors import TrainingError, one_line
from llm2comp.model import LLM2Comp
from llm2comp.training.arguments import learning_rate
from llm2comp.training.checkpoints import (
    discard,
    last_checkpoint,
    load_trained,
    prune,
    save_trained,
    seal,
    step_of,
    trained_weights,
)
from llm2comp.training.divergence import divergence
from llm2comp.training.loss_plot import draw_loss
from llm2comp.training.metrics import append_metrics, read_metrics, rewind_metrics
from llm2comp.training.progress import ProgressBar, format_entry
from llm2comp.training.settings import StageSettings
from llm2comp.units import format_bytes

__all__ = [
    "StageMixin",
    "train_in_float32",
    "training_mode",
]

_UNREPORTED = ("epoch", "samples_per_second", "steps_per_second", "total_flos", "model_preparation_time")
_LEAST_FREE = 2**20
_SECONDS_BETWEEN_PICTURES = 60.0
_logger = logging.getLogger(__name__)


@dataclass
class _Pace:
    """Tokens and time since the last report, for tokens per second."""

    tokens: int = 0
    since: float | None = None

    def count(self, tokens: int) -> None:
        self.since = self.since or time.perf_counter()
        self.tokens += tokens

    def pause(self, seconds: float) -> None:
        """Excludes time that was not spent training."""
        if self.since is not None:
            self.since += seconds

    @property
    def seconds(self) -> float:
        """Time spent training since the last report."""
        return time.perf_counter() - self.since if self.since is not None else 0.0


class _CurrentIntervals(TrainerCallback):
    """Intervals of the current settings; the trainer would resume with those stored in the checkpoint."""

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        state.compute_steps(args, state.max_steps)


class StageMixin(Trainer):
    """Base of every stage's trainer, listed before the trainer class; `run` resumes and trains to the last step.

    Args:
        stage: The stage's settings.
        **arguments: To the trainer, unchanged.
    """

    def __init__(self, stage: StageSettings, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.stage = stage
        self.folder = Path(str(self.args.output_dir))
        self._trained: torch.nn.Module = arguments["model"]
        self._pace = _Pace()
        self._batches: list[dict[str, Any]] = []  # of the current update, or of the last one
        self._updated = False
        self._reported = 0  # step of the last report of a loss
        self._drawn = time.monotonic()
        self._losses: list[dict[str, Any]] = []
        self._bar = ProgressBar()
        self.remove_callback(PrinterCallback)  # it would print what `log` reports
        self.add_callback(_CurrentIntervals())
        self.add_callback(self._bar)

    def run(self) -> None:
        """Trains to the last step, from the last complete checkpoint if there is one; then puts the model in eval mode.

        Raises:
            TrainingError: If the loss, its gradient or a weight is not finite, if the run diverges, or if a checkpoint
                cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        checkpoint = last_checkpoint(self.folder)
        if self.is_world_process_zero():
            rewind_metrics(self.folder, step_of(checkpoint) if checkpoint else None)
        self.accelerator.wait_for_everyone()
        self._losses = read_metrics(self.folder) if checkpoint else []
        self._reported = step_of(checkpoint) if checkpoint else 0
        if checkpoint is None:
            self.begin()
        resuming = logging.getLogger("transformers.trainer_utils")
        resuming.addFilter(_is_no_comparison)
        try:
            self.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        except (KeyboardInterrupt, SystemExit):
            self._bar.close()
            self._report_interruption()
            raise
        finally:
            resuming.removeFilter(_is_no_comparison)
            self._bar.close()
        self._check_weights()
        self.accelerator.unwrap_model(self.model_wrapped, keep_fp32_wrapper=False)
        self._trained.zero_grad()
        self._trained.eval()

    def begin(self) -> None:
        """Measures and reports before the first update of a run; nothing by default."""

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LambdaLR:
        """The published schedule, as a factor of each parameter group's peak learning rate."""
        if self.lr_scheduler is None:
            stage = self.stage

            def share(finished: int) -> float:
                rate = learning_rate(
                    finished + 1,
                    total=stage.decay_steps or stage.steps,
                    warmup=stage.warmup_steps,
                    peak=stage.learning_rate,
                    floor=stage.learning_rate_floor,
                )
                return rate / stage.learning_rate

            scheduled = optimizer or self.optimizer
            assert scheduled is not None
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(scheduled, share)
        return self.lr_scheduler

    def texts_of(self, inputs: dict[str, Any]) -> Sequence[Any]:
        """Ids of a batch's texts, for error messages."""
        return inputs.get("ids", ())  # type: ignore[no-any-return]

    def tokens_of(self, inputs: dict[str, Any]) -> int:
        """Number of tokens of a batch, without padding."""
        return sum(int(value.sum()) for name, value in inputs.items() if name.endswith("attention_mask"))

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[Any]:
        """Held-out rows in order, all of them on every device: their loss does not depend on the number of devices."""
        rows: Any = self.eval_dataset if eval_dataset is None else eval_dataset
        if isinstance(eval_dataset, str):
            rows = self.eval_dataset[eval_dataset]  # type: ignore[index]
        most = min(self.args.per_device_eval_batch_size, len(rows))
        # batches of equal size, so that the mean over batches is the mean over rows
        size = next(size for size in range(most, 0, -1) if len(rows) % size == 0)
        return DataLoader(rows, batch_size=size, collate_fn=self.data_collator, generator=torch.Generator())

    def training_step(self, model: torch.nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Tensor:
        """Loss of one forward and backward pass; if it is not finite, the run ends before any weight is updated.

        Raises:
            TrainingError: If the loss is not finite, naming the step and the update's texts; or if the device is out
                of memory.
        """
        self._pace.count(self.tokens_of(inputs))
        if self._updated:
            self._batches, self._updated = [], False
        self._batches.append(dict(inputs))
        try:
            loss: Tensor = super().training_step(model, inputs, *args, **kwargs)
        except torch.OutOfMemoryError as error:
            raise TrainingError(
                f"the device's memory is too small for step {self.state.global_step + 1} "
                f"({one_line(error, limit=160)}): set "
                "gradient_checkpointing: true, micro_batch (stages 2 and 3) or accumulation, or lower the longest "
                "text or batch_size"
            ) from error
        if not math.isfinite(float(loss)):
            self._stop(f"the loss is {float(loss)}", self.state.global_step + 1)
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds tokens per second and writes the entry to `metrics.jsonl` and to the log.

        Raises:
            TrainingError: If the run diverges.
        """
        left: float | None = None
        evaluation = (value for name, value in logs.items() if name.startswith("eval_") and name.endswith("_runtime"))
        self._pace.pause(sum(evaluation))
        if "loss" in logs and self._pace.since is not None:
            tokens = self.accelerator.reduce(torch.tensor(float(self._pace.tokens), device=self.args.device))
            seconds = self._pace.seconds
            logs["tokens_per_second"] = round(float(tokens) / seconds, 1)
            updates = max(1, self.state.global_step - self._reported)
            left = seconds / updates * (self.stage.steps - self.state.global_step)
            self._reported = self.state.global_step
            self._pace = _Pace(0, time.perf_counter())
        super().log(logs, start_time)
        entry = {"step": self.state.global_step, **_without_times(logs)}
        # the trainer's last entry has `train_runtime` and covers only the updates since the last interruption
        if self.is_world_process_zero() and "train_runtime" not in logs:
            append_metrics(self.folder, entry)
            _logger.info("%s", format_entry(entry, self.stage.steps, left))
        if "loss" in logs:
            self._check_divergence(entry)

    def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
        rows: Any = self.train_dataset if train_dataset is None else train_dataset
        return SequentialSampler(rows)  # `RunRows` shuffles

    def _get_grad_norm(self, model: torch.nn.Module, grad_norm: Any = None) -> Any:
        """Norm of the gradient, checked on every device before the optimizer steps."""
        norm = super()._get_grad_norm(model, grad_norm)  # type: ignore[no-untyped-call]
        if not math.isfinite(float(norm)):
            self._stop(f"the gradient's norm is {float(norm)}", self.state.global_step + 1)
        self._updated = True
        return norm

    def _stop(self, reason: str, step: int) -> NoReturn:
        texts = [text for batch in self._batches for text in self.texts_of(batch)]
        raise TrainingError(
            f"{reason} at step {step} on texts {texts}; {self._kept()}. Lower learning_rate or set precision: float32"
        )

    def _report_interruption(self) -> None:
        """Logs where the run was stopped, and from where the same command goes on."""
        checkpoint = last_checkpoint(self.folder)
        kept = f"goes on from {checkpoint}" if checkpoint else "begins again, for no checkpoint had been written"
        if self.is_world_process_zero():
            _logger.info(
                "interrupted after step %d of %d; the same command %s", self.state.global_step, self.stage.steps, kept
            )

    def _kept(self) -> str:
        """What remains of the run."""
        checkpoint = last_checkpoint(self.folder)
        return f"{checkpoint} is whole and untouched" if checkpoint else "no checkpoint had been written"

    def _check_divergence(self, entry: dict[str, Any]) -> None:
        """Raises if the loss is far above its start; all processes have the same losses."""
        self._losses.append(entry)
        if self.stage.stop_diverged and (reason := divergence(self._losses)):
            raise TrainingError(
                f"{reason}; {self._kept()}. Lower learning_rate, or raise warmup_steps or batch_size, in another "
                "folder; stop_diverged: false trains on"
            )

    def _check_weights(self) -> None:
        """Raises if a weight is not finite; called before the weights are written anywhere."""
        broken = [
            name for name, weight in trained_weights(self._trained).items() if not bool(torch.isfinite(weight).all())
        ]
        if broken:
            self._stop(f"{len(broken)} weights, {broken[0]} first, are not finite", self.state.global_step)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Writes the trained weights only; the frozen backbone is not part of a checkpoint."""
        if self.args.should_save:
            save_trained(self._trained, Path(output_dir or self.folder))

    def _load_from_checkpoint(self, checkpoint: str, model: torch.nn.Module | None = None) -> None:
        load_trained(self._trained, Path(checkpoint))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None or self.args.device.type != "cpu":
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        # transformers 5.17 loads them to "cpu:0", which torch does not know
        for part, name in ((self.optimizer, "optimizer.pt"), (self.lr_scheduler, "scheduler.pt")):
            assert part is not None
            part.load_state_dict(torch.load(Path(checkpoint, name), map_location="cpu", weights_only=True))

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        started = time.perf_counter()
        self._check_weights()
        folder = self.folder / f"checkpoint-{self.state.global_step}"
        if self.args.should_save:
            discard(folder)  # left there by a run that was killed
        self.accelerator.wait_for_everyone()
        try:
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()  # until each process has written its random states
            if self.args.should_save:
                seal(folder)
                prune(folder.parent)
        except (OSError, RuntimeError, SafetensorError) as error:
            written = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            free = shutil.disk_usage(self.folder).free
            discard(folder)
            # torch reports a full disk as a position in its file that it did not expect
            full = f"the disk is full ({format_bytes(free)} free)" if free < max(written, _LEAST_FREE) else ""
            reason = full or one_line(error)
            raise TrainingError(
                f"{folder} could not be written: {reason}. Free space there and start again: it goes on from the last "
                "checkpoint"
            ) from error
        if self.args.should_save and time.monotonic() - self._drawn > _SECONDS_BETWEEN_PICTURES:
            draw_loss(self.folder)
            self._drawn = time.monotonic()
        self._pace.pause(time.perf_counter() - started)


def _is_no_comparison(record: logging.LogRecord) -> bool:
    """False for transformers' warning about intervals that differ from the checkpoint's: the present ones are taken."""
    return "do not match the ones in the `trainer_state.json`" not in record.getMessage()


@contextmanager
def training_mode(model: LLM2Comp, settings: StageSettings) -> Iterator[None]:
    """Recomputes activations inside the block if the settings say so; afterwards the model is in eval mode."""
    backbone = model.encoder.backbone
    if settings.gradient_checkpointing is True:
        backbone.enable_checkpointing()
    try:
        yield
    finally:
        if settings.gradient_checkpointing is True:
            language_model: Any = backbone.language_model
            # the name depends on the version of transformers
            disable = getattr(language_model, "activation_checkpointing_disable", None)
            (disable or language_model.gradient_checkpointing_disable)()
        model.eval()


def train_in_float32(model: torch.nn.Module) -> None:
    """Converts the trained weights to float32: in half precision, small updates would be lost."""
    for parameter in trained_weights(model).values():
        parameter.data = parameter.data.float()


def _without_times(logs: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in logs.items() if not name.endswith(_UNREPORTED)}
