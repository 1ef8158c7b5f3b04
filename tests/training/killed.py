"""A training process that kills itself (SIGKILL, nothing is cleaned up) just before the n-th change it would make to its files."""

import os
import signal
import sys
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

_CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree")


def run_and_kill(recipe: Path, output: Path, *, kill_at: int | None) -> int | None:
    """Runs a recipe in a process of its own; the exit code, negative if a signal ended it."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["llm2comp.training.recipe", "llm2comp.training.pretrain", "llm2comp.training.compression", "llm2comp.training.contrastive"])
    process = context.Process(target=_train, args=(recipe, output, kill_at))
    process.start()
    process.join(120)
    return process.exitcode


def _train(recipe: Path, output: Path, kill_at: int | None) -> None:
    import torch

    from llm2comp.training.recipe import run_recipe
    from llm2comp.training.recipe_file import read_recipe

    torch.set_num_threads(1)
    sys.addaudithook(_counter(output, kill_at))
    run_recipe(read_recipe(recipe, data=recipe.parent / "data", pairs=output / "pairs"), output)
    os._exit(0)


def _counter(output: Path, kill_at: int | None) -> Callable[[str, tuple[Any, ...]], None]:
    changes = 0

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal changes
        writes = event in _CHANGES or (event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR))
        if writes and isinstance(arguments[0], str | Path) and str(arguments[0]).startswith(str(output)):
            changes += 1
            if changes == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    return watch
