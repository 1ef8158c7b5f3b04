"""Runs that end in the middle, and the checkpoints they leave."""

from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerCallback

from llm2comp.training.checkpoints import seal
from llm2comp.training.loop import StageMixin
from llm2comp.training.token_trainer import TokenTrainer


def write_checkpoint(folder: Path, step: int, *, whole: bool = True) -> Path:
    checkpoint = folder / f"checkpoint-{step}"
    checkpoint.mkdir(parents=True)
    (checkpoint / "weights").write_bytes(b"12345")
    if whole:
        seal(checkpoint)
    return checkpoint


class Killed(Exception):
    pass


class KillAfter(TrainerCallback):
    """Ends a run before the update after `step`, without clean-up."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self.step:
            raise Killed


def at_start(monkeypatch: pytest.MonkeyPatch, callback: TrainerCallback) -> None:
    """Adds a callback to every run that starts from the beginning."""
    for kind in (StageMixin, TokenTrainer):
        monkeypatch.setattr(
            kind, "begin", lambda trainer, begin=kind.begin: (begin(trainer), trainer.add_callback(callback))
        )
