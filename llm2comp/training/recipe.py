"""Running a recipe: all stages in order, each in a folder of its own; a run can be interrupted and resumed at any time.

A stage is finished when its model exists, which is written atomically. An interrupted stage resumes from its last
complete checkpoint; finished stages are not repeated.
"""

import gc
import json
import logging
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from transformers import set_seed

from llm2comp.atomic import write_file
from llm2comp.backbone.hardware import multiplies_bfloat16
from llm2comp.backbone.loading import check_language_model
from llm2comp.corpus.triples import dataset_name
from llm2comp.errors import SettingsError
from llm2comp.model import LLM2Comp, load
from llm2comp.model_folder import CONFIG_FILE
from llm2comp.training.arguments import division_problems, tracker_problems
from llm2comp.training.checkpoints import last_checkpoint
from llm2comp.training.loss_plot import draw_loss
from llm2comp.training.negatives.files import mine_hard_negatives
from llm2comp.training.negatives.settings import RecipeMiningSettings
from llm2comp.training.pairs.settings import PairSettings
from llm2comp.training.recipe_file import STAGES, Recipe
from llm2comp.training.run_folder import (
    check_settings,
    main_process_first,
    processes,
    remember_settings,
    settings_values,
    sole_user,
    updates_before,
    write_run_file,
)
from llm2comp.training.settings import CompressionSettings, ContrastiveSettings, ModelSettings, StageSettings
from llm2comp.training.vocabulary import trim_vocabulary
from llm2comp.training.whitening import draw_texts, fit_whitening
from llm2comp.training.whitening_settings import WhiteningSettings

__all__ = ["check_trainable", "first_model", "run_recipe", "run_stage", "starting_point", "train_once"]

_Model = TypeVar("_Model", bound=LLM2Comp)

_DERIVED = (("derive", "pairs"), ("derive_long", "long_pairs"))
_MINED = ("mine", "mined_pairs")
_WHITENED = ("whitening", "model")
_logger = logging.getLogger(__name__)


def run_recipe(recipe: Recipe, output: Path) -> Path:
    """Trains all stages of a recipe, or resumes where an interrupted run stopped.

    Args:
        recipe: From `read_recipe`.
        output: Folder that gets a folder for each stage, `pairs/`, `long_pairs/` and `mined_pairs/` if the recipe
            makes them, and the finished `model/`.

    Returns:
        Folder of the finished model.

    Raises:
        SettingsError: If a stage there was begun with other settings.
        LLM2CompError: As the stages.
    """
    check_trainable({name: stage for name in ("pretrain", *STAGES) if (stage := getattr(recipe, name)) is not None})
    with sole_user(output):
        _check_begun(recipe, output)
        if processes().is_main_process:
            write_run_file(output / "recipe.json", [json.dumps(settings_values(recipe), indent=2), "\n"])
            made = {field: settings_values(getattr(recipe, field)) for field, _ in (*_DERIVED, _MINED, _WHITENED)}
            remember_settings(output, made)
        backbone = _backbone(recipe, output)
        if any(getattr(recipe, field) is not None and not (output / name).is_dir() for field, name in _DERIVED):
            check_language_model(backbone, recipe.model.revision, sha256=recipe.model.backbone_sha256)
        for field, name in _DERIVED:
            _derive(field, getattr(recipe, field), output / name)
        previous: Path | None = None
        stages = [name for name in STAGES if getattr(recipe, name) is not None]
        for name in stages:
            settings: StageSettings = getattr(recipe, name)
            start = starting_point(recipe.model, backbone, previous, settings)
            is_last = name == stages[-1]
            if is_last:
                _keep_shorter(output, updates_before(output / name, _begun_with(settings, recipe.model)))
            previous = run_stage(name, settings, output / name, start, recipe.model, final=is_last)
            if name == "supervised" and recipe.mine is not None:
                _mine(recipe.mine, previous, output / "pairs", output / _MINED[1])
        assert previous is not None  # a recipe has a stage
        return _finish(previous, output / "model", recipe.model, recipe.whitening)


def check_trainable(stages: Mapping[str, StageSettings]) -> None:
    """Checks what stages need of this machine, before the first of them is trained.

    Raises:
        SettingsError: Naming all stages whose batches cannot be divided among the devices, or whose trackers are not
            installed.
    """
    problems = [
        f"{name}: {problem}"
        for name, settings in stages.items()
        for problem in (*division_problems(settings), *tracker_problems(settings))
    ]
    if problems:
        raise SettingsError(*problems)


def run_stage(
    name: str,
    settings: StageSettings,
    folder: Path,
    start: Callable[[], LLM2Comp],
    model_settings: ModelSettings,
    *,
    final: bool = False,
) -> Path:
    """Trains one stage, unless its model exists; with more `steps` than before, a finished one is trained further.

    Args:
        name: Name of the stage, for the log.
        settings: Settings of stage 1, 2 or 3.
        folder: Folder of checkpoints, `metrics.jsonl` and the finished `model/`.
        start: Loads the model that the stage starts from; see `starting_point`.
        model_settings: Remembered with the stage's settings; their adapter is the new one of `adapter: merge`.
        final: Whether no stage follows, so that the model is saved in the precision of the settings; else it is saved
            as it was trained.

    Returns:
        Folder of the finished model.

    Raises:
        SettingsError: If the folder was begun with other settings.
        LLM2CompError: As the stage.
    """
    from llm2comp.training.compression import train_compression
    from llm2comp.training.contrastive import train_contrastive

    def train(model: LLM2Comp) -> None:
        if isinstance(settings, CompressionSettings):
            train_compression(model, settings, folder)
        else:
            assert isinstance(settings, ContrastiveSettings)
            train_contrastive(model, settings, folder, fresh_adapter=model_settings.adapter)

    weights = model_settings.weights if final else None
    return train_once(name, settings, folder, start, model_settings, train, weights=weights)


def train_once(
    name: str,
    settings: StageSettings,
    folder: Path,
    start: Callable[[], _Model],
    model_settings: ModelSettings,
    train: Callable[[_Model], object],
    *,
    mark: str = CONFIG_FILE,
    weights: str | None = None,
) -> Path:
    """Trains a model and saves it, unless the finished model exists.

    With more `steps` than before the run goes on from its last checkpoint; the model that it had made is kept beside
    the new one as `model-UPDATES`.

    Args:
        name: Name of the stage, for the log.
        settings: Settings of the stage.
        folder: Folder of the stage; gets the finished `model/`.
        start: Loads the model to be trained.
        model_settings: Remembered with the stage's settings; it says whether the saved model names a wheel.
        train: Trains the model in place.
        mark: File by which a finished model is recognized.
        weights: Precision of the saved weights; None saves them as they were trained.

    Returns:
        Folder of the finished model.

    Raises:
        SettingsError: If the folder was begun with other settings.
        LLM2CompError: As `train`.
    """
    finished = folder / "model"
    begun = _begun_with(settings, model_settings)
    _check_trained(folder, begun)
    shorter = updates_before(folder, begun)
    if (finished / mark).is_file() and shorter is None:
        _logger.info("%s: finished before", name)
        return finished
    if (finished / mark).is_file() and last_checkpoint(folder) is None:
        raise SettingsError(
            f"{folder} was finished after {shorter} updates, and has no checkpoint to go on from to {settings.steps}; "
            "train its model further in another folder"
        )
    with sole_user(folder):
        _keep_shorter(folder, shorter)
        if processes().is_main_process:
            remember_settings(folder, begun)
        set_seed(settings.seed)  # a fresh adapter is drawn at random
        model = start()
        try:
            train(model)
        finally:
            if processes().is_main_process:
                draw_loss(folder)
        with main_process_first() as main:
            if main:
                model.save(finished, weights_dtype=weights, name_wheel=model_settings.name_wheel)
    del model
    gc.collect()  # trainer and model refer to each other, and the next stage needs the memory
    return finished


def _keep_shorter(folder: Path, updates: int | None) -> None:
    """Renames the model of a shorter run, which is about to be trained further."""
    if updates is None or not processes().is_main_process or not (folder / "model").is_dir():
        return
    kept = folder / f"model-{updates}"
    shutil.rmtree(kept, ignore_errors=True)
    (folder / "model").rename(kept)
    _logger.info("trained further from update %d; the model so far is %s", updates, kept)


def starting_point(
    settings: ModelSettings, backbone: str | Path, previous: Path | None, stage: StageSettings
) -> Callable[[], LLM2Comp]:
    """Function that loads a stage's first model: that of the previous stage, or an untrained encoder."""
    if previous is None:
        return lambda: first_model(settings, backbone, stage.precision)
    dtype = "bfloat16" if _weights(settings, stage.precision) is torch.bfloat16 else "float32"
    return lambda: load(previous, dtype=dtype)


def _backbone(recipe: Recipe, output: Path) -> str | Path:
    """The language model that the recipe names, or the one that stage 0 trains."""
    if recipe.pretrain is None:
        assert recipe.model.backbone is not None
        return recipe.model.backbone
    from llm2comp.training.pretrain import pretrain

    return pretrain(recipe.pretrain, output / "pretrain")


def _derive(field: str, settings: PairSettings | None, pairs: Path) -> None:
    if settings is None or pairs.is_dir():
        return
    from llm2comp.training.pairs.derive import derive_pairs

    with main_process_first() as main:
        if main:
            for unfinished in pairs.parent.glob(f".{pairs.name}.*"):
                shutil.rmtree(unfinished)
            counts = derive_pairs(settings, pairs)
            if not counts:
                shutil.rmtree(pairs)
                raise SettingsError(
                    f"{field}: no pair can be derived from its corpora; give articles with titles and paragraphs, "
                    "docstrings, or ready files"
                )
            _logger.info("%s: %s", field, counts)


def _mine(settings: RecipeMiningSettings, model: Path, pairs: Path, mined: Path) -> None:
    """Writes the derived pairs again, those of some kinds with negatives that the model finds; once."""
    kinds = {dataset_name(path): path for path in sorted(pairs.glob("*.jsonl.gz"))}
    if unknown := sorted(set(settings.kinds) - set(kinds)):
        raise SettingsError(f"mine: derive made no pairs of the kinds {', '.join(unknown)}, but of {', '.join(kinds)}")
    with main_process_first() as main:
        if not main or all((mined / path.name).is_file() for path in kinds.values()):
            return
        encoder = load(model, max_length=settings.max_length)
        counts = mine_hard_negatives(encoder, [kinds[kind] for kind in settings.kinds], mined, settings)
        for kind, path in kinds.items():
            if kind not in settings.kinds:
                write_file(mined / path.name, [path.read_bytes()])
    _logger.info("mine: %s", {name: count.mined for name, count in counts.items()})


def _check_begun(recipe: Recipe, output: Path) -> None:
    """Compares the recipe with the settings that each stage was begun with, before any stage is trained further.

    Raises:
        SettingsError: If settings differ, or the model is missing that an existing later stage was made from.
    """
    if recipe.pretrain is not None:
        check_settings(output / "pretrain", settings_values(recipe.pretrain))
    check_settings(
        output,
        {
            field: settings_values(getattr(recipe, field))
            for field, name in (*_DERIVED, _MINED, _WHITENED)
            if (output / name).is_dir()
        },
    )
    missing: Path | None = None
    for name in (stage for stage in STAGES if getattr(recipe, stage) is not None):
        is_last = not any((output / later).is_dir() for later in STAGES[STAGES.index(name) + 1 :])
        _check_trained(output / name, _begun_with(getattr(recipe, name), recipe.model), may_grow=is_last)
        if missing is not None and (output / name).is_dir():
            raise SettingsError(
                f"{output / name} was made from {missing}, which is not finished: delete {output / name} too, so that "
                "it is made again"
            )
        if not (output / name / "model" / CONFIG_FILE).is_file():
            missing = output / name / "model"


def _check_trained(folder: Path, settings: dict[str, Any], *, may_grow: bool = True) -> None:
    """Compares settings with those the folder was begun with, once it contains a checkpoint or a model.

    `may_grow` allows more `steps` than before.

    Raises:
        SettingsError: Naming the fields that differ.
    """
    if (folder / "model").is_dir() or any(folder.glob("checkpoint-*")):
        check_settings(folder, settings, may_grow=may_grow)


def _begun_with(settings: StageSettings, model: ModelSettings) -> dict[str, Any]:
    return {**settings_values(settings), "model": settings_values(model)}


def first_model(settings: ModelSettings, backbone: str | Path, precision: str) -> LLM2Comp:
    """The untrained encoder a recipe starts from."""
    model = LLM2Comp.from_backbone(
        backbone,
        settings.memory_tokens,
        adapter=settings.adapter,
        max_length=settings.max_length,
        query_instruction=settings.query_instruction,
        pooling=dict(settings.pooling),
        sha256=settings.backbone_sha256,
        layers=settings.layers,
        revision=settings.revision,
        dtype=_weights(settings, precision),
    )
    if settings.vocabulary is not None:
        trim_vocabulary(model, settings.vocabulary)
    return model


def _weights(settings: ModelSettings, precision: str) -> torch.dtype:
    """Precision of the backbone in memory: bfloat16 below an adapter, if the stage computes in it, else float32."""
    half = precision == "bfloat16" or (precision == "auto" and multiplies_bfloat16())
    return torch.bfloat16 if half and settings.adapter is not None else torch.float32


def _finish(trained: Path, target: Path, settings: ModelSettings, whitening: WhiteningSettings | None) -> Path:
    """Saves the last stage's model as the recipe's result, whitened if asked for, in the precision of the settings."""
    if not (target / CONFIG_FILE).is_file():
        with main_process_first() as main:
            if main:
                matrix = whitening and fit_whitening(load(trained), draw_texts(whitening), power=whitening.power)
                model = load(trained, dtype="float32")
                model = model if matrix is None else model.variant(whitening=matrix)
                model.save(target, weights_dtype=settings.weights, name_wheel=settings.name_wheel)
    return target
