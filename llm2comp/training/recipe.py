"""Running a recipe: every stage in order, each into its own folder, resumable at any moment.

A stage is finished when its `model` folder exists, which is written whole or not at all; a stage that was interrupted goes on
from its last whole checkpoint; finished stages are not repeated.
"""

import json
import logging
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from llm2comp.errors import SettingsError
from llm2comp.hardware import multiplies_bfloat16
from llm2comp.model import LLM2Comp, load
from llm2comp.model_folder import CONFIG_FILE
from llm2comp.training.recipe_file import Recipe
from llm2comp.training.settings import ContrastiveSettings, ModelSettings, StageSettings

__all__ = ["run_recipe", "run_stage", "starting_point"]

_logger = logging.getLogger(__name__)


def run_recipe(recipe: Recipe, output: Path) -> Path:
    """Trains all stages of a recipe; run again, it goes on where it was.

    Args:
        recipe: From `read_recipe`.
        output: Gets `pretrain/`, `pairs/`, `compression/`, `unsupervised/`, `supervised/` and the finished `model/`.

    Returns:
        The folder of the finished model.

    Raises:
        SettingsError: If the output folder was begun with another recipe.
        LLM2CompError: As the stages do.
    """
    output.mkdir(parents=True, exist_ok=True)
    _remember(recipe, output / "recipe.json")
    backbone: str | Path | None = recipe.model.backbone
    if recipe.pretrain is not None:
        from llm2comp.training.pretrain import pretrain

        finished = output / "pretrain" / "backbone"
        backbone = finished if finished.is_dir() else pretrain(recipe.pretrain, output / "pretrain")
    assert backbone is not None
    if recipe.derive is not None and not (output / "pairs").is_dir():
        from llm2comp.training.pairs import derive_pairs

        with PartialState().main_process_first():
            if PartialState().is_main_process:
                _logger.info("derived pairs: %s", derive_pairs(recipe.derive, output / "pairs"))
    previous: Path | None = None
    for name in ("compression", "unsupervised", "supervised"):
        settings: StageSettings | None = getattr(recipe, name)
        if settings is None:
            continue
        start = starting_point(recipe.model, backbone, previous, settings)
        previous = run_stage(name, settings, output / name, start, recipe.model)
    if previous is None:
        raise SettingsError(f"recipe {recipe.name} has no stage to train")
    return _finish(previous, output / "model", recipe.model)


def run_stage(name: str, settings: StageSettings, folder: Path, start: Callable[[], LLM2Comp], model_settings: ModelSettings) -> Path:
    """Trains one stage unless its model is there already, and returns the folder of the model."""
    from llm2comp.training.compression import train_compression
    from llm2comp.training.contrastive import train_contrastive
    from llm2comp.training.settings import CompressionSettings

    finished = folder / "model"
    if (finished / CONFIG_FILE).is_file():
        _logger.info("%s: finished before", name)
        return finished
    folder.mkdir(parents=True, exist_ok=True)
    model = start()
    if isinstance(settings, CompressionSettings):
        train_compression(model, settings, folder)
    else:
        assert isinstance(settings, ContrastiveSettings)
        train_contrastive(model, settings, folder, fresh_adapter=model_settings.adapter)
    if PartialState().is_main_process:
        model.save(finished)
    PartialState().wait_for_everyone()
    return finished


def _first_model(settings: ModelSettings, backbone: str | Path, precision: str) -> LLM2Comp:
    """The untrained encoder a recipe starts from."""
    return LLM2Comp.from_backbone(
        backbone,
        settings.memory_tokens,
        adapter=settings.adapter,
        max_length=settings.max_length,
        query_instruction=settings.query_instruction,
        pooling=dict(settings.pooling),
        revision=settings.revision,
        dtype=_weights(settings, precision),
    )


def starting_point(settings: ModelSettings, backbone: str | Path, previous: Path | None, stage: StageSettings) -> Callable[[], LLM2Comp]:
    """What loads the model a stage starts from: the previous stage's, or an untrained encoder around the backbone."""
    if previous is None:
        return lambda: _first_model(settings, backbone, stage.precision)
    dtype = "bfloat16" if _weights(settings, stage.precision) is torch.bfloat16 else "float32"
    return lambda: load(previous, dtype=dtype)


def _weights(settings: ModelSettings, precision: str) -> torch.dtype:
    """Precision of the backbone in memory: half where an adapter is trained on it, full where its own weights are."""
    half = precision == "bfloat16" or (precision == "auto" and multiplies_bfloat16())
    return torch.bfloat16 if half and settings.adapter is not None else torch.float32


def _remember(recipe: Recipe, path: Path) -> None:
    """Writes the resolved recipe at the first run, and compares it at every later one."""
    described: dict[str, Any] = json.loads(json.dumps(asdict(recipe), default=str))
    if not path.is_file():
        path.write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
        return
    before = json.loads(path.read_text(encoding="utf-8"))
    changed = [name for name in described if described[name] != before.get(name)]
    if changed:
        raise SettingsError(f"{path.parent} was begun with other settings of {', '.join(changed)}; give another --output, or the recipe it was begun with")


def _finish(trained: Path, target: Path, settings: ModelSettings) -> Path:
    """Puts the last stage's model, in the precision asked for, where it is looked for."""
    if not (target / CONFIG_FILE).is_file() and PartialState().is_main_process:
        load(trained, dtype="float32").save(target, weights_dtype=getattr(torch, settings.weights))
    PartialState().wait_for_everyone()
    return target
