"""Checkpoints of a run, from which it resumes after an interruption; incomplete ones are ignored.

A checkpoint contains the trained weights, the optimizer, the schedule, the random states of every process and the
position in the data. It is complete once its last file, `complete.json`, names the size of every other file.
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
    """Newest complete checkpoint of a run; None if there is none."""
    return max(filter(_is_whole, _checkpoints(folder)), key=step_of, default=None)


def step_of(checkpoint: Path) -> int:
    """Number of updates before a checkpoint was written."""
    return int(checkpoint.name.removeprefix("checkpoint-"))


def seal(checkpoint: Path) -> None:
    """Marks a checkpoint as complete, after all its files have been flushed to disk."""
    files = [path for path in sorted(checkpoint.rglob("*")) if path.is_file() and path.name != _COMPLETE]
    sync_tree(checkpoint)
    sizes = {path.relative_to(checkpoint).as_posix(): path.stat().st_size for path in files}
    write_file(checkpoint / _COMPLETE, [json.dumps({"step": step_of(checkpoint), "files": sizes})])


def discard(checkpoint: Path) -> None:
    """Removes a checkpoint; if the removal is interrupted, the rest counts as incomplete."""
    (checkpoint / _COMPLETE).unlink(missing_ok=True)
    shutil.rmtree(checkpoint, ignore_errors=True)


def prune(folder: Path, *, keep: int = 2) -> None:
    """Removes all checkpoints except the newest complete ones."""
    newest = sorted(filter(_is_whole, _checkpoints(folder)), key=step_of)[-keep:]
    for checkpoint in _checkpoints(folder):
        if checkpoint not in newest:
            discard(checkpoint)


def trained_weights(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """Parameters that are trained, by name; shared ones occur once."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def save_trained(model: torch.nn.Module, folder: Path) -> None:
    """Writes the trained weights, without the frozen backbone."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: weight.detach().cpu().contiguous() for name, weight in trained_weights(model).items()}, folder / _WEIGHTS
    )


def load_trained(model: torch.nn.Module, checkpoint: Path) -> None:
    """Loads a checkpoint's weights into the model.

    Raises:
        TrainingError: If the checkpoint belongs to a run that trained other weights.
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
