"""Training in child processes, forked from one that has imported everything already."""

import os
import signal
import socket
import sys
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

_CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree")
_STAGES = [
    "llm2comp.training.recipe",
    "llm2comp.training.pretrain",
    "llm2comp.training.compression",
    "llm2comp.training.contrastive",
]


def _context() -> ForkServerContext:
    context = get_context("forkserver")
    context.set_forkserver_preload(_STAGES)
    return context


def run_on_devices(devices: int, train: Callable[..., None], *arguments: Any, ends: int = 0) -> None:
    """Runs a function in processes connected as by torchrun, on the CPU; each must exit with the code `ends`."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
    running = [
        _context().Process(target=_as_rank, args=(rank, devices, port, train, arguments)) for rank in range(devices)
    ]
    for process in running:
        process.start()
    for process in running:
        process.join(120)
    codes = [process.exitcode for process in running]
    for process in running:
        process.kill()
    assert codes == [ends] * devices


def _as_rank(rank: int, devices: int, port: int, train: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    import torch

    torch.set_num_threads(1)
    variables = {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": devices,
        "LOCAL_WORLD_SIZE": devices,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
    }
    os.environ.update({name: str(value) for name, value in variables.items()})
    train(*arguments)
    torch.distributed.destroy_process_group()


def run_and_kill(recipe: Path, output: Path, *, kill_at: int | None = None, where: str = "") -> int | None:
    """Runs a recipe that kills itself (SIGKILL) just before its n-th change to a file of the output.

    Args:
        recipe: The file; its texts are in `data` beside it.
        output: The recipe's output folder.
        kill_at: n; None never kills it.
        where: Only changes of paths that contain this text are counted.

    Returns:
        Exit code, negative if a signal ended the process.
    """
    process = _context().Process(target=_recipe, args=(recipe, output, kill_at, where))
    process.start()
    process.join(120)
    return process.exitcode


def _recipe(recipe: Path, output: Path, kill_at: int | None, where: str) -> None:
    import torch

    from llm2comp.training.recipe import run_recipe
    from llm2comp.training.recipe_file import read_recipe

    torch.set_num_threads(1)
    sys.addaudithook(_counter(output, kill_at, where))
    run_recipe(read_recipe(recipe, data=recipe.parent / "data", pairs=output / "pairs"), output)


def _counter(output: Path, kill_at: int | None, where: str) -> Callable[[str, tuple[Any, ...]], None]:
    changes = 0

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal changes
        writes = event in _CHANGES or (
            event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        )
        if writes and isinstance(arguments[0], str | Path) and str(arguments[0]).startswith(str(output)):
            changes += where in str(arguments[0]).removeprefix(str(output))
            if changes == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    return watch
