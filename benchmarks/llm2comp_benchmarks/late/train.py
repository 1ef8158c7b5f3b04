"""Training for late interaction, and the same updates without it.

`python -m llm2comp_benchmarks.late.train RUN DATA control maxsim` trains the variants named, of `training.yaml`, from
the model that this file names, and writes `RUN/VARIANT/model`. DATA is the folder that its recipe calls `{data}`; the
pairs are derived into `RUN/pairs` once, and those that are there are taken. A last argument `steps=N` trains for so
many updates, or further. An interrupted run goes on with the same command.
"""

import logging
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from llm2comp.errors import SettingsError
from llm2comp.model_folder import find_trained
from llm2comp.training.pairs.derive import derive_pairs
from llm2comp.training.recipe import run_stage, starting_point
from llm2comp.training.recipe_file import read_recipe
from llm2comp.training.settings import ContrastiveSettings, ModelSettings

__all__ = ["stage_of", "train"]

_logger = logging.getLogger(__name__)
_FILE = Path(__file__).with_name("training.yaml")


def stage_of(variant: str, pairs: Path, data: Path, *, steps: int | None = None) -> ContrastiveSettings:
    """Settings of a variant: the recipe's, those of all variants, its own.

    Args:
        variant: Its name in `training.yaml`.
        pairs: Folder of the training pairs.
        data: Folder that the recipe calls `{data}`.
        steps: Number of updates; None: the file's.

    Raises:
        SettingsError: There is no such variant, or the settings contradict each other.
    """
    plan = _plan()
    if variant not in plan["variants"]:
        raise SettingsError(f"no variant {variant!r}; {_FILE.name} has {', '.join(plan['variants'])}")
    recipe = read_recipe(plan["recipe"], data=data, pairs=pairs)
    assert recipe.supervised is not None
    values: dict[str, Any] = {field.name: getattr(recipe.supervised, field.name) for field in fields(recipe.supervised)}
    values |= plan["stage"] | plan["variants"][variant]
    return ContrastiveSettings(**values | ({} if steps is None else {"steps": steps}))


def train(run: Path, data: Path, variants: Sequence[str], *, steps: int | None = None) -> list[Path]:
    """Trains the variants one after another; those that are finished are left as they are.

    Args:
        run: Folder of the pairs, and of a folder for each variant.
        data: As in `stage_of`.
        variants: Their names.
        steps: As in `stage_of`.

    Returns:
        The folder of each model.

    Raises:
        SettingsError: As `stage_of`; or a variant was begun with other settings.
        LLM2CompError: The data cannot be read, or the training ends early.
    """
    plan, pairs = _plan(), run / "pairs"
    name = plan["model"]
    stages = {variant: stage_of(variant, pairs, data, steps=steps) for variant in variants}
    recipe = read_recipe(plan["recipe"], data=data, pairs=pairs, sources=not pairs.is_dir())
    if not pairs.is_dir():
        assert recipe.derive is not None
        derive_pairs(recipe.derive, pairs)
    model = ModelSettings(
        backbone=name,
        memory_tokens=recipe.model.memory_tokens,
        max_length=recipe.model.max_length,
        adapter=recipe.model.adapter,
        weights=recipe.model.weights,
    )
    return [
        run_stage(
            variant, stage, run / variant, starting_point(model, name, find_trained(name), stage), model, final=True
        )
        for variant, stage in stages.items()
    ]


def _plan() -> dict[str, Any]:
    plan: dict[str, Any] = yaml.safe_load(_FILE.read_text(encoding="utf-8"))
    return plan


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    *given, last = sys.argv[1:]
    updates = int(last.removeprefix("steps=")) if last.startswith("steps=") else None
    names = [*given[2:], *([last] if updates is None else [])]
    for folder in train(Path(given[0]), Path(given[1]), names, steps=updates):
        _logger.info("%s", folder)
