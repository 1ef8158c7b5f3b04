"""What all stages add to the transformers Trainer: the published schedule, whole checkpoints, metrics as JSON lines, a stop at NaN."""

import logging
import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.utils.data import DataLoader, SequentialSampler
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations.integration_utils import get_available_reporting_integrations

from llm2comp.backbone.hardware import multiplies_bfloat16
from llm2comp.errors import SettingsError, TrainingError, one_line
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
from llm2comp.training.metrics import append_metrics, rewind_metrics
from llm2comp.training.run_folder import processes
from llm2comp.training.settings import StageSettings

__all__ = ["StageMixin", "learning_rate", "stop_checkpointing", "train_in_float32", "trainer_arguments"]

_UNREPORTED = ("epoch", "samples_per_second", "steps_per_second", "total_flos", "model_preparation_time")
_logger = logging.getLogger(__name__)


def trainer_arguments(
    settings: StageSettings, output: Path, arguments: type[TrainingArguments] = TrainingArguments, **extra: Any
) -> Any:
    """The trainer's arguments for one stage; `extra` goes to the named class as it is.

    Raises:
        SettingsError: If a batch cannot be shared by the devices, or a tracker is not installed.
    """
    devices = max(1, int(os.environ.get("WORLD_SIZE", "1")))
    per_device, rest = divmod(settings.batch_size, devices * settings.accumulation)
    if rest:
        raise SettingsError(
            f"batch_size {settings.batch_size} is not a multiple of {devices} devices x {settings.accumulation} "
            "accumulation steps"
        )
    if missing := sorted(set(settings.report_to) - set(available := get_available_reporting_integrations())):
        raise SettingsError(
            f"report_to names {', '.join(missing)}; installed here: "
            f"{', '.join(available) or 'none (pip install the tracker)'}"
        )
    extra.setdefault("per_device_eval_batch_size", per_device)
    processes()  # before the trainer asks, so that its waits are this package's
    made = arguments(
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
        logging_nan_inf_filter=False,
        save_steps=settings.save_steps,
        eval_steps=settings.eval_steps,
        report_to=list(settings.report_to) or "none",
        disable_tqdm=True,
        **extra,
    )
    if made.n_gpu > 1:
        made._n_gpu = (
            1  # several devices are for torchrun; the trainer's threads would split batches that are lists of texts
        )
    return made


def learning_rate(update: int, *, total: int, warmup: int, peak: float, floor: float) -> float:
    """Learning rate of one optimizer update.

    Args:
        update: Number of the update, from 1.
        total: Updates of the run.
        warmup: Updates until the peak; 0 or 1 starts at the peak.
        peak: Highest learning rate.
        floor: Learning rate of the first two updates and of the end.

    Source: DeepSpeed's WarmupDecayLR as the published LLM2Comp runs set it.
    """
    position = update - 2
    if warmup > 1 and position < warmup:
        share = 0.0 if position < 0 else math.log(position + 1) / math.log(warmup)
    else:
        share = max(0.0, (total - position) / (total - warmup)) if position >= warmup else 1.0
    return floor + (peak - floor) * min(share, 1.0)


@dataclass
class _Pace:
    """Tokens seen since the last report, for tokens/s."""

    tokens: int = 0
    since: float | None = None

    def count(self, tokens: int) -> None:
        self.since = self.since or time.perf_counter()
        self.tokens += tokens

    def pause(self, seconds: float) -> None:
        """Leaves out time that was not spent training."""
        if self.since is not None:
            self.since += seconds


class _IntervalsAsAsked(TrainerCallback):
    """The trainer goes on with the intervals of the checkpoint; a run that is started again has those it is started with."""

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        state.compute_steps(args, state.max_steps)


class StageMixin(Trainer):
    """Mixed into a trainer, before it; `run` trains from wherever the folder is to the last step.

    Args:
        stage: The stage's settings.
        **arguments: To the trainer, as they are.
    """

    def __init__(self, stage: StageSettings, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.stage = stage
        self.folder = Path(str(self.args.output_dir))
        self._trained: torch.nn.Module = arguments["model"]
        self._pace = _Pace()
        self._batches: list[dict[str, Any]] = []  # of the update under way, or of the last one
        self._updated = False
        self.remove_callback(PrinterCallback)  # it prints what `log` reports
        self.add_callback(_IntervalsAsAsked())

    def run(self) -> None:
        """Trains to the last step, from the last whole checkpoint if there is one; the model is then in eval mode.

        Raises:
            TrainingError: If the loss, its gradient or a weight is not finite, or a checkpoint cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        checkpoint = last_checkpoint(self.folder)
        if self.is_world_process_zero():
            rewind_metrics(self.folder, step_of(checkpoint) if checkpoint else None)
        if checkpoint is None:
            self.begin()
        self.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        self._check_weights()
        self.accelerator.unwrap_model(self.model_wrapped, keep_fp32_wrapper=False)
        self._trained.zero_grad()
        self._trained.eval()

    def begin(self) -> None:
        """What a run measures before its first update."""

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LambdaLR:
        """The published schedule as a multiple of each parameter group's own peak."""
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

            chosen = optimizer or self.optimizer
            assert chosen is not None
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(chosen, share)
        return self.lr_scheduler

    def texts_of(self, inputs: dict[str, Any]) -> Sequence[Any]:
        """Ids that tell a user which texts a batch was made of."""
        return inputs.get("ids", ())  # type: ignore[no-any-return]

    def tokens_of(self, inputs: dict[str, Any]) -> int:
        """Tokens of a batch, padding left out."""
        return sum(int(value.sum()) for name, value in inputs.items() if name.endswith("attention_mask"))

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[Any]:
        """The held-out rows in order, all of them on every device, so that their loss is the same on one device and on several."""
        held_out: Any = self.eval_dataset
        rows = (
            held_out
            if eval_dataset is None
            else held_out[eval_dataset]
            if isinstance(eval_dataset, str)
            else eval_dataset
        )
        most = min(self.args.per_device_eval_batch_size, len(rows))
        size = next(
            size for size in range(most, 0, -1) if len(rows) % size == 0
        )  # equal batches, so that their mean is that of the rows
        return DataLoader(rows, batch_size=size, collate_fn=self.data_collator, generator=torch.Generator())

    def training_step(self, model: torch.nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Tensor:
        """One forward and backward pass; a loss that is not finite ends the run before it can touch the weights.

        Raises:
            TrainingError: Naming the step and the texts of the update; or that the device's memory is too small.
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
        """Adds tokens/s, writes the entry to metrics.jsonl and to the log."""
        self._pace.pause(
            sum(value for name, value in logs.items() if name.startswith("eval_") and name.endswith("_runtime"))
        )
        if "loss" in logs and self._pace.since is not None:
            tokens = self.accelerator.reduce(torch.tensor(float(self._pace.tokens), device=self.args.device))
            logs["tokens_per_second"] = round(float(tokens) / (time.perf_counter() - self._pace.since), 1)
            self._pace = _Pace(0, time.perf_counter())
        super().log(logs, start_time)
        if (
            self.is_world_process_zero() and "train_runtime" not in logs
        ):  # a mean over the updates since the last interruption
            entry = {
                "step": self.state.global_step,
                **{name: value for name, value in logs.items() if not name.endswith(_UNREPORTED)},
            }
            append_metrics(self.folder, entry)
            _logger.info(
                "%s",
                "  ".join(
                    f"{name} {value:.5g}" if isinstance(value, float) else f"{name} {value}"
                    for name, value in entry.items()
                ),
            )

    def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
        rows: Any = self.train_dataset if train_dataset is None else train_dataset
        return SequentialSampler(rows)  # `RunRows` has shuffled them

    def _get_grad_norm(self, model: torch.nn.Module, grad_norm: Any = None) -> Any:
        """The trainer asks for it between the gradients and the optimizer: on every device the last chance to stop."""
        norm = super()._get_grad_norm(model, grad_norm)  # type: ignore[no-untyped-call]
        if not math.isfinite(float(norm)):
            self._stop(f"the gradient's norm is {float(norm)}", self.state.global_step + 1)
        self._updated = True
        return norm

    def _stop(self, what: str, step: int) -> NoReturn:
        texts = [text for batch in self._batches for text in self.texts_of(batch)]
        checkpoint = last_checkpoint(self.folder)
        kept = f"{checkpoint} is whole and untouched" if checkpoint else "no checkpoint had been written"
        raise TrainingError(
            f"{what} at step {step} on texts {texts}; {kept}. Lower learning_rate or set precision: float32"
        )

    def _check_weights(self) -> None:
        """Raises if an update blew up the weights, before they are kept anywhere."""
        broken = [
            name for name, weight in trained_weights(self._trained).items() if not bool(torch.isfinite(weight).all())
        ]
        if broken:
            self._stop(f"{len(broken)} weights, {broken[0]} first, are not finite", self.state.global_step)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """A checkpoint's weights are those being trained; the frozen backbone is not copied into it."""
        if self.args.should_save:
            save_trained(self._trained, Path(output_dir or self.folder))

    def _load_from_checkpoint(self, checkpoint: str, model: torch.nn.Module | None = None) -> None:
        load_trained(self._trained, Path(checkpoint))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None or self.args.device.type != "cpu":
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        for part, name in (
            (self.optimizer, "optimizer.pt"),
            (self.lr_scheduler, "scheduler.pt"),
        ):  # transformers 5.17 asks for "cpu:0", which is no place
            assert part is not None
            part.load_state_dict(torch.load(Path(checkpoint, name), map_location="cpu", weights_only=True))

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        started = time.perf_counter()
        self._check_weights()
        folder = self.folder / f"checkpoint-{self.state.global_step}"
        if self.args.should_save:
            discard(folder)  # what a killed run left there
        self.accelerator.wait_for_everyone()
        try:
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()  # each process has written its random states
            if self.args.should_save:
                seal(folder)
                prune(folder.parent)
        except (OSError, RuntimeError, SafetensorError) as error:
            discard(folder)
            reason = one_line(error)
            raise TrainingError(
                f"{folder} could not be written: {reason}. Free space there and start again: it goes on from the last "
                "checkpoint"
            ) from error
        self._pace.pause(time.perf_counter() - started)


def stop_checkpointing(model: Any) -> None:
    """Ends the recomputing of activations, by the name the installed transformers gives it."""
    stop = getattr(model, "activation_checkpointing_disable", None) or model.gradient_checkpointing_disable
    stop()


def train_in_float32(model: torch.nn.Module) -> None:
    """Gives the trained weights the precision that small updates need, whatever precision they were loaded in."""
    for parameter in trained_weights(model).values():
        parameter.data = parameter.data.float()
