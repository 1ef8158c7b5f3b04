"""Checkpoints that are whole or passed over: what a killed run goes on from.

A checkpoint holds the weights being trained, the optimizer, the schedule, the random states of every process and the
position in the data. It counts once its last file, `complete.json`, names the size of every other file.
"""

import json
import re
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from llm2comp.atomic import sync_tree, write_file
from llm2comp.errors import TrainingError

__all__ = ["discard", "last_checkpoint", "load_trained", "prune", "save_trained", "seal", "step_of", "trained_weights"]

_COMPLETE = "complete.json"
_WEIGHTS = "trained.safetensors"
_NAME = re.compile(r"checkpoint-(\d+)")


def last_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was written to its end; None at the first start. Half-written ones are passed over."""
    return max(filter(_is_whole, _checkpoints(folder)), key=step_of, default=None)


def step_of(checkpoint: Path) -> int:
    """The number of updates a checkpoint was written after."""
    return int(checkpoint.name.removeprefix("checkpoint-"))


def seal(checkpoint: Path) -> None:
    """Declares a checkpoint whole, once everything in it has reached the disk."""
    files = [path for path in sorted(checkpoint.rglob("*")) if path.is_file() and path.name != _COMPLETE]
    sync_tree(checkpoint)
    sizes = {path.relative_to(checkpoint).as_posix(): path.stat().st_size for path in files}
    write_file(checkpoint / _COMPLETE, [json.dumps({"step": step_of(checkpoint), "files": sizes})])


def discard(checkpoint: Path) -> None:
    """Removes a checkpoint; one whose removal is cut short no longer counts."""
    (checkpoint / _COMPLETE).unlink(missing_ok=True)
    shutil.rmtree(checkpoint, ignore_errors=True)


def prune(folder: Path, *, keep: int = 2) -> None:
    """Removes all checkpoints but the newest whole ones; what is half-written goes too."""
    newest = sorted(filter(_is_whole, _checkpoints(folder)), key=step_of)[-keep:]
    for checkpoint in _checkpoints(folder):
        if checkpoint not in newest:
            discard(checkpoint)


def trained_weights(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """The parameters that training changes, by name, shared ones once."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def save_trained(model: torch.nn.Module, folder: Path) -> None:
    """Writes the weights being trained; the frozen backbone is not copied."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: weight.detach().cpu().contiguous() for name, weight in trained_weights(model).items()}, folder / _WEIGHTS
    )


def load_trained(model: torch.nn.Module, checkpoint: Path) -> None:
    """Puts a checkpoint's weights into the model.

    Raises:
        TrainingError: If the checkpoint was written by a run that trained other weights.
    """
    path, weights = checkpoint / _WEIGHTS, trained_weights(model)
    saved = load_file(path)
    if saved.keys() != weights.keys() or any(saved[name].shape != weight.shape for name, weight in weights.items()):
        raise TrainingError(
            f"{path} was written by a run with other trained weights; give that run's settings or another output folder"
        )
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(saved[name])


def _checkpoints(folder: Path) -> list[Path]:
    return [path for path in folder.glob("checkpoint-*") if path.is_dir() and _NAME.fullmatch(path.name)]


def _is_whole(checkpoint: Path) -> bool:
    try:
        sizes: dict[str, int] = json.loads((checkpoint / _COMPLETE).read_text(encoding="utf-8")).get("files", {})
        return all((checkpoint / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, AttributeError):
        return False
