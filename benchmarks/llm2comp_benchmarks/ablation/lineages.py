"""The models of an ablation and their training: a pretext, a number of memory tokens and a seed, through all stages."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from llm2comp import LLM2Comp, load
from llm2comp.errors import SettingsError
from llm2comp.model_folder import CONFIG_FILE
from llm2comp.training.compression import train_compression
from llm2comp.training.contrastive import train_contrastive
from llm2comp.training.fresh_layers import restart_layers
from llm2comp.training.recipe import starting_point, train_once
from llm2comp.training.recipe_file import Recipe
from llm2comp.training.settings import ContrastiveSettings, ModelSettings, StageSettings
from llm2comp_benchmarks.ablation.pace import UpdateTimes
from llm2comp_benchmarks.systems.mntp.encoder import TEXT_MEAN_FILE, load_text_mean, text_mean_of
from llm2comp_benchmarks.systems.mntp.objective import mntp_like, train_masked

__all__ = ["Lineage", "Stage", "mark_of", "stage_settings", "stages_of", "train_lineage", "untrained"]


@dataclass(frozen=True, slots=True)
class Lineage:
    """The models of all stages that descend from one start.

    Attributes:
        pretext: Objective of stage 1, `mntp`, or `none`; of a language model without training the name of its pooling.
        memory_tokens: k; 0 where the text's own tokens are pooled instead.
        seed: Of all stages.
    """

    pretext: str
    memory_tokens: int
    seed: int

    @property
    def name(self) -> str:
        """Name of its folder and beginning of its result files' names."""
        return f"{self.pretext}-k{self.memory_tokens}-seed{self.seed}"


@dataclass(frozen=True, slots=True)
class Stage:
    """A model to be measured.

    Attributes:
        name: Its last stage.
        folder: The saved model; of a model without training the language model.
        samples: Supervised pairs it was trained on.
        finished: Whether that stage is at its end.
        pooling: Pooling to measure the model with; None: the model's own.
    """

    name: Literal["untrained", "pretext", "unsupervised", "supervised"]
    folder: Path | str
    samples: int = 0
    finished: bool = True
    pooling: dict[str, Any] | None = None


def untrained(pooling: str, backbone: str | Path) -> tuple[Lineage, Stage]:
    """The language model itself, its states pooled as in the literature; a key of `POOLINGS`."""
    return Lineage(pooling, 0, 0), Stage("untrained", str(backbone))


def mark_of(lineage: Lineage) -> str:
    """File by which a finished model of the lineage is recognized."""
    return TEXT_MEAN_FILE if lineage.pretext == "mntp" else CONFIG_FILE


def stage_settings(recipe: Recipe, lineage: Lineage) -> dict[str, StageSettings]:
    """Settings of the stages that are trained, by name and in order.

    Raises:
        SettingsError: The recipe lacks a stage.
    """
    compression, unsupervised, supervised = recipe.compression, recipe.unsupervised, recipe.supervised
    if compression is None or unsupervised is None or supervised is None:
        raise SettingsError(f"recipe {recipe.name} needs all three stages")
    contrastive = {"unsupervised": unsupervised, "supervised": supervised}
    if lineage.pretext == "none":
        stages: dict[str, StageSettings] = {**contrastive}
    elif lineage.pretext == "mntp":
        stages = {"pretext": mntp_like(compression), **contrastive}
    else:
        stages = {"pretext": replace(compression, objective=lineage.pretext), **contrastive}  # type: ignore[arg-type]
    return {name: replace(settings, seed=lineage.seed) for name, settings in stages.items()}


def stages_of(lineage: Lineage, recipe: Recipe, folder: Path, curve: Sequence[int]) -> Iterator[Stage]:
    """The models of a lineage that are measured, in the order in which they are made."""
    assert recipe.supervised is not None
    for name in ("pretext", "unsupervised"):
        if name != "pretext" or lineage.pretext != "none":
            yield Stage(name, folder / name / "model")
    for updates in curve:
        last = updates == curve[-1]
        kept = folder / "supervised" / ("model" if last else f"model-{updates}")
        yield Stage("supervised", kept, updates * recipe.supervised.batch_size, last)


def train_lineage(
    lineage: Lineage, recipe: Recipe, backbone: str | Path, folder: Path, curve: Sequence[int]
) -> Iterator[Stage]:
    """Trains the stages that are not there yet; yields each model as soon as it is trained.

    Args:
        lineage: The models to train.
        recipe: Three stages and the model settings.
        backbone: The language model.
        folder: Where each stage gets a folder.
        curve: Updates of stage 3 after which the model is kept, rising.

    Raises:
        SettingsError: The recipe lacks a stage, or the folder was begun with other settings.
    """
    model = replace(recipe.model, memory_tokens=max(1, lineage.memory_tokens))
    stages, read, previous = stage_settings(recipe, lineage), _reader(lineage), None
    trained = ""
    for stage in stages_of(lineage, recipe, folder, curve):
        if stage.name != trained:
            start = _start(lineage, recipe, model, backbone) if previous is None else partial(read, previous)
            previous = _train(lineage, stage.name, stages[stage.name], model, start, folder / stage.name, curve)
            trained = stage.name
        yield stage


def _start(lineage: Lineage, recipe: Recipe, model: ModelSettings, backbone: str | Path) -> Callable[[], LLM2Comp]:
    """Loads the untrained model of a lineage."""
    compression, unsupervised = recipe.compression, recipe.unsupervised
    assert compression is not None
    assert unsupervised is not None
    if lineage.pretext == "mntp":
        return lambda: text_mean_of(backbone, model, precision=compression.precision)
    if lineage.pretext != "none":
        return starting_point(model, backbone, None, compression)

    def first() -> LLM2Comp:
        start = starting_point(model, backbone, None, unsupervised)()
        if compression.restart_layers:
            start.encoder.backbone.forget_origin()
            restart_layers(start.encoder.backbone.language_model, seed=lineage.seed)
        return start

    return first


def _reader(lineage: Lineage) -> Callable[[Path], LLM2Comp]:
    """Loads a model of the lineage to train it further: in float32, because its adapter is merged into the weights."""
    if lineage.pretext == "mntp":
        return lambda folder: load_text_mean(folder, dtype="float32")
    return lambda folder: load(folder, dtype="float32")


def _train(
    lineage: Lineage,
    name: str,
    settings: StageSettings,
    model: ModelSettings,
    start: Callable[[], LLM2Comp],
    folder: Path,
    curve: Sequence[int],
) -> Path:
    """Folder of the model after a stage, trained unless it exists; those along the curve of stage 3 are beside it."""

    def train(trained: LLM2Comp) -> None:
        callbacks: list[TrainerCallback] = [UpdateTimes(folder)]
        if name == "supervised":
            callbacks.append(_Keep(trained, folder, curve[:-1], name_wheel=model.name_wheel))
        if isinstance(settings, ContrastiveSettings):
            train_contrastive(trained, settings, folder, fresh_adapter=model.adapter, callbacks=callbacks)
        else:
            run: Any = train_masked if lineage.pretext == "mntp" else train_compression
            run(trained, settings, folder, callbacks=callbacks)

    return train_once(name, settings, folder, start, model, train, mark=mark_of(lineage))


class _Keep(TrainerCallback):
    """Saves the model after some numbers of updates."""

    def __init__(self, model: LLM2Comp, folder: Path, updates: Sequence[int], *, name_wheel: bool) -> None:
        self._model, self._folder, self._updates, self._name_wheel = model, folder, updates, name_wheel

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.global_step in self._updates:
            self._model.changed()
            self._model.save(self._folder / f"model-{state.global_step}", name_wheel=self._name_wheel)
