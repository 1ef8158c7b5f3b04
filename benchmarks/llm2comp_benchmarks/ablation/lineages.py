"""Training of an ablation's models: a pretext, a number of memory tokens and a seed, through all stages."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from llm2comp import LLM2Comp, load
from llm2comp.errors import SettingsError
from llm2comp.model_folder import CONFIG_FILE
from llm2comp.training.contrastive import train_contrastive
from llm2comp.training.fresh_layers import restart_layers
from llm2comp.training.recipe import run_stage, starting_point, train_once
from llm2comp.training.recipe_file import Recipe
from llm2comp.training.settings import CompressionSettings, ContrastiveSettings, ModelSettings
from llm2comp_benchmarks.systems.mntp.encoder import TEXT_MEAN_FILE, load_text_mean
from llm2comp_benchmarks.systems.mntp.objective import mntp_like
from llm2comp_benchmarks.systems.mntp.train import train_mntp

__all__ = ["Lineage", "Stage", "train_lineage"]


@dataclass(frozen=True, slots=True)
class Lineage:
    """The models of all stages that descend from one start.

    Attributes:
        pretext: Objective of stage 1, `mntp`, or `none`.
        memory_tokens: k; 0 where the text's own tokens are averaged instead (mntp).
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
    """A trained model, to be measured.

    Attributes:
        name: Its last stage.
        folder: The saved model.
        samples: Supervised pairs it was trained on.
        finished: Whether that stage is at its end.
        pooling: Pooling to measure the model with; None: the model's own.
    """

    name: Literal["pretext", "unsupervised", "supervised"]
    folder: Path
    samples: int = 0
    finished: bool = True
    pooling: dict[str, Any] | None = None


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
    settings = replace(recipe.model, memory_tokens=max(1, lineage.memory_tokens))
    compression, unsupervised, supervised = recipe.compression, recipe.unsupervised, recipe.supervised
    if compression is None or unsupervised is None or supervised is None:
        raise SettingsError(f"recipe {recipe.name} needs all three stages")
    previous: Path | None = None
    if lineage.pretext != "none":
        previous = _pretext(lineage, replace(compression, seed=lineage.seed), settings, backbone, folder / "pretext")
        yield Stage("pretext", previous)

    def first() -> LLM2Comp:
        model = starting_point(settings, backbone, None, unsupervised)()
        if compression.restart_layers:
            restart_layers(model.encoder.backbone.language_model, seed=lineage.seed)
        return model

    read, mark = _reader(lineage), TEXT_MEAN_FILE if lineage.pretext == "mntp" else CONFIG_FILE
    start = (lambda: read(previous)) if previous is not None else first
    after_views = _contrastive(
        replace(unsupervised, seed=lineage.seed), settings, start, folder / "unsupervised", (), mark
    )
    yield Stage("unsupervised", after_views)
    finished = _contrastive(
        replace(supervised, seed=lineage.seed), settings, lambda: read(after_views), folder / "supervised", curve, mark
    )
    for updates in curve:
        kept = finished if updates == curve[-1] else finished.with_name(f"model-{updates}")
        yield Stage("supervised", kept, updates * supervised.batch_size, kept == finished)


def _pretext(
    lineage: Lineage, settings: CompressionSettings, model: ModelSettings, backbone: str | Path, folder: Path
) -> Path:
    if lineage.pretext == "mntp":
        return train_mntp(backbone, folder, mntp_like(settings), model)
    stage = replace(settings, objective=lineage.pretext)  # type: ignore[arg-type]
    return run_stage("compression", stage, folder, starting_point(model, backbone, None, stage), model)


def _reader(lineage: Lineage) -> Callable[[Path], LLM2Comp]:
    """Loads a model of the lineage to train it further: in float32, because all weights are trained."""
    if lineage.pretext == "mntp":
        return lambda folder: load_text_mean(folder, dtype="float32")
    return lambda folder: load(folder, dtype="float32")


def _contrastive(
    settings: ContrastiveSettings,
    model: ModelSettings,
    start: Callable[[], LLM2Comp],
    folder: Path,
    keep: Sequence[int],
    mark: str,
) -> Path:
    """Folder of the model after stage 2 or 3, trained unless it exists; those after `keep` updates are beside it."""

    def train(trained: LLM2Comp) -> None:
        train_contrastive(
            trained, settings, folder, fresh_adapter=model.adapter, callbacks=[_Keep(trained, folder, keep[:-1])]
        )

    return train_once(folder.name, settings, folder, start, model, train, mark=mark)


class _Keep(TrainerCallback):
    """Saves the model after some numbers of updates."""

    def __init__(self, model: LLM2Comp, folder: Path, updates: Sequence[int]) -> None:
        self._model, self._folder, self._updates = model, folder, updates

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.global_step in self._updates:
            self._model.changed()
            self._model.save(self._folder / f"model-{state.global_step}")
