"""Memory of a training step, measured on one text, and what is done where a whole batch does not fit."""

import logging
import math
import os
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from llm2comp.backbone.backbone import Backbone
from llm2comp.training.checkpoints import trained_weights
from llm2comp.training.run_folder import processes
from llm2comp.training.settings import ContrastiveSettings, StageSettings
from llm2comp.units import format_bytes

__all__ = [
    "BatchMemory",
    "StepMemory",
    "available_memory",
    "fit",
    "kept_for_backward",
    "most_tokens",
    "step_memory",
    "usable_memory",
]

_USABLE = 0.8
"""Share of the available memory that a step may take; the rest is for gaps of the allocator."""
_PEAK = 1.3
"""Most memory of a step, relative to what is kept for the backward pass: that pass has intermediate values too."""
_LEAST_ROWS = 4
"""Rows of a micro-batch below which activations are recomputed as well."""
_OPTIMIZER_BYTES = 12
"""Per trained weight: its gradient and the two moments of AdamW, in float32."""

_GROUP_FILES = (
    ("memory.max", "memory.current"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
)
"""Limit and use of a control group's memory, below /sys/fs/cgroup, in its two versions."""
_logger = logging.getLogger(__name__)
_Settings = TypeVar("_Settings", bound=StageSettings)


@dataclass(frozen=True)
class StepMemory:
    """What an update takes besides the model, in bytes."""

    per_token: float
    """Activations kept for the backward pass, per token (memory tokens included)."""
    recomputed: float
    """The same with gradient checkpointing: the input of each layer, and the activations of one."""
    optimizer: int
    """Gradients and moments of the trained weights."""

    def of_pass(self, tokens: float, *, recompute: bool = False) -> float:
        """Most memory of an update whose passes hold so many tokens at a time."""
        return self.optimizer + _PEAK * (self.recomputed if recompute else self.per_token) * tokens

    def fitting_tokens(self, usable: float) -> float:
        """Most tokens of a pass that takes no more than so many bytes, nothing being recomputed."""
        return max(0.0, usable - self.optimizer) / (_PEAK * max(1.0, self.per_token))


@dataclass(frozen=True)
class BatchMemory:
    """What the memory of a stage's updates depends on."""

    backbone: Backbone
    measure: Callable[[], StepMemory]
    """Measures a step."""
    tokens: float
    """Most tokens of a batch on one device, memory tokens included."""
    text_tokens: float = 0.0
    """Most tokens of a text, memory tokens included; for stages that have micro-batches."""

    @property
    def available(self) -> float:
        """Bytes that an update may take."""
        return usable_memory(next(self.backbone.parameters()).device)

    def needed(self, settings: StageSettings, whole: float = 0.0) -> float:
        """Bytes that an update takes by settings in which nothing is left to the memory.

        Args:
            settings: The settings.
            whole: As `whole_tokens` returns.
        """
        rows = getattr(settings, "micro_batch", None)
        tokens = self.tokens if rows is None else min(self.tokens, max(whole, rows * self.text_tokens))
        return self.measure().of_pass(tokens, recompute=settings.gradient_checkpointing is True)

    def whole_tokens(self, asked: StageSettings, chosen: StageSettings) -> float:
        """Tokens up to which a batch still goes in one pass where the longest takes micro-batches; 0: none does.

        Micro-batches are computed twice (GradCache), so only the batches take them that would not fit.

        Args:
            asked: Settings of the stage: a number of rows that is given holds for all batches.
            chosen: What `fit` made of them. With activations recomputed, and with several processes, which would have
                to agree on each batch, all batches take micro-batches.
        """
        left = getattr(asked, "micro_batch", None) == "auto" and getattr(chosen, "micro_batch", None) is not None
        if not left or chosen.gradient_checkpointing is True or processes().num_processes > 1:
            return 0.0
        return self.measure().fitting_tokens(self.available)


def kept_for_backward(forward: Callable[[], Tensor], parameters: Iterable[Tensor]) -> int:
    """Bytes that a forward pass keeps for its backward pass, besides the parameters; random states stay."""
    known = {parameter.untyped_storage().data_ptr() for parameter in parameters}
    sizes: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = forward()
        total = sum(sizes.values())
        del result
    return total


def step_memory(
    module: torch.nn.Module,
    language_model: PreTrainedModel,
    forward: Callable[[int], Tensor],
    tokens: int,
    *,
    bfloat16: bool = False,
) -> StepMemory:
    """Memory of a step, from passes over one and over two copies of a text.

    Args:
        module: What is trained; it is in training mode meanwhile.
        language_model: Its language model.
        forward: Result of a pass over so many copies.
        tokens: Tokens of one copy, memory tokens included.
        bfloat16: Whether products are in bfloat16.
    """
    parameters = list(module.parameters())
    device = parameters[0].device.type
    modes = {part: part.training for part in module.modules()}
    module.train()
    try:
        with torch.autocast(device, torch.bfloat16) if bfloat16 else nullcontext():
            one, two = (kept_for_backward(partial(forward, count), parameters) for count in (1, 2))
    finally:
        for part, training in modes.items():
            part.training = training
    trained = sum(weight.numel() for weight in trained_weights(module).values())
    per_token = max(0, two - one) / tokens
    config = language_model.config.get_text_config(decoder=True)
    inputs = config.num_hidden_layers * config.hidden_size * (2 if bfloat16 else 4)
    recomputed = min(per_token, inputs + 2 * per_token / config.num_hidden_layers)
    return StepMemory(per_token, recomputed, _OPTIMIZER_BYTES * trained)


def fit(settings: _Settings, batch: BatchMemory) -> _Settings:
    """Settings of a stage in which nothing is left to the memory any more.

    All batches go in one pass if the longest fits; else in micro-batches (stages 2 and 3; but see `whole_tokens`), and
    with activations recomputed where even small ones would not fit, or the stage has none.
    """
    rows = getattr(settings, "micro_batch", None)
    recompute = settings.gradient_checkpointing
    if rows != "auto" and recompute != "auto":
        return settings
    step, usable = batch.measure(), batch.available
    tokens = batch.tokens if not isinstance(rows, int) else min(batch.tokens, rows * batch.text_tokens)
    may_recompute = recompute is True or (recompute == "auto" and batch.backbone.attention == "packed")
    needed = step.of_pass(tokens, recompute=recompute is True)
    if fits := _agreed(needed <= usable):
        rows = None if rows == "auto" else rows
    elif rows == "auto":
        rows = _agreed(_fitting_rows(step, usable, batch.text_tokens, recompute is True))
        if rows < _LEAST_ROWS and may_recompute:
            recompute, rows = True, _agreed(_fitting_rows(step, usable, batch.text_tokens, True))
        rows = min(rows, settings.batch_size)
    else:
        recompute = may_recompute
    chosen: dict[str, Any] = {"gradient_checkpointing": recompute is True}
    if isinstance(settings, ContrastiveSettings):
        chosen["micro_batch"] = rows
    if not fits:
        _logger.info(
            "the longest batches in one pass would take %s of the %s available: %s",
            format_bytes(needed),
            format_bytes(usable),
            ", ".join(f"{name} {value}" for name, value in chosen.items() if value),
        )
    return replace(settings, **chosen)


def _fitting_rows(step: StepMemory, usable: float, text_tokens: float, recompute: bool) -> int:
    """Largest power of two of texts that fit into a pass, at least 1."""
    of_text = step.of_pass(text_tokens, recompute=recompute) - step.optimizer
    most = max(1, int((usable - step.optimizer) / max(1.0, of_text)))
    return int(2 ** (most.bit_length() - 1))


def most_tokens(lengths: NDArray[np.int64], rows: int, *, padded: bool) -> float:
    """Tokens that hardly any batch exceeds, by the lengths of sampled texts, (sampled rows, texts of a row).

    Args:
        lengths: Tokens of each text.
        rows: Rows of a batch.
        padded: Whether texts of a pass are padded to its longest one.
    """
    if padded:
        return float(rows * lengths.max(axis=0).sum())
    sums = lengths.sum(axis=1)
    return min(rows * float(sums.max()), rows * float(sums.mean()) + 4 * float(sums.std()) * math.sqrt(rows))


def usable_memory(device: torch.device) -> float:
    """Bytes that an update may take on a device."""
    return _USABLE * available_memory(device)


def available_memory(device: torch.device) -> float:
    """Bytes that this process can still take on a device; on a CPU, its share among the processes of the run."""
    if device.type == "cuda":
        reserved = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return float(torch.cuda.mem_get_info(device)[0] + reserved)
    return _free_memory() / max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def _free_memory() -> float:
    """Free memory of the machine, or of this process's control group if that has less; half of all if unknown."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = next(float(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2
    for most, used in _GROUP_FILES:
        try:
            limit, taken = (Path("/sys/fs/cgroup", name).read_text(encoding="ascii").strip() for name in (most, used))
            free = min(free, float(limit) - float(taken))
        except (OSError, ValueError):  # no such group, or "max"
            continue
    return max(0.0, free)


_Value = TypeVar("_Value", bool, int)


def _agreed(value: _Value) -> _Value:
    """The main process's value, in all processes of the run."""
    if processes().num_processes == 1:
        return value
    from accelerate.utils import broadcast_object_list

    values = [value]
    broadcast_object_list(values)
    return values[0]
