"""Settings of a single stage, from its command: defaults, a file, single fields, sources; all mistakes at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from llm2comp.training.limits import TrainedLimits
    from llm2comp.training.settings import ModelSettings, StageSettings

__all__ = ["Start", "read_stage", "unused_options"]

_PAPER = "llama-2-7b-paper"
_MEMORY_TOKENS, _RANK = 8, 16


@dataclass(frozen=True)
class Start:
    """The model that a stage starts from, and what a new encoder around a language model is made of; None: default."""

    model: str
    memory_tokens: int | None
    rank: int | None
    layers: int | None
    max_length: int | None
    weights: str
    name_wheel: bool = False

    def values(self) -> dict[str, Any]:
        """Fields of `ModelSettings`, without `max_length` if it is not given."""
        rank = _RANK if self.rank is None else self.rank
        adapter = {"rank": rank, "alpha": 2 * rank} if rank else None
        values = {
            "backbone": self.model,
            "layers": self.layers,
            "memory_tokens": _MEMORY_TOKENS if self.memory_tokens is None else self.memory_tokens,
            "adapter": adapter,
            "weights": self.weights,
            "name_wheel": self.name_wheel,
        }
        return values if self.max_length is None else {**values, "max_length": self.max_length}


def read_stage(
    name: str, start: Start, file: Path | None, fields: Sequence[str], sources: Mapping[str, Any], *, paper: bool
) -> "tuple[StageSettings, ModelSettings]":
    """Settings of a stage and of its model, without loading anything.

    Args:
        name: compression, mntp, unsupervised or supervised.
        start: The model.
        file: YAML file of fields.
        fields: FIELD=VALUE each; they go before the file.
        sources: Fields that name texts; None leaves one out.
        paper: The paper's values instead of defaults that follow from the model and the steps.

    Raises:
        SettingsError: All that is wrong with the fields, the model and the files of texts.
    """
    from llm2comp.errors import SettingsError
    from llm2comp.training.defaults import fill_model, fill_stage
    from llm2comp.training.limits import BackboneLimits, TrainedLimits, trained_limits
    from llm2comp.training.settings import ContrastiveSettings, ModelSettings
    from llm2comp.training.settings_file import build_settings
    from llm2comp.training.sources import missing_sources

    values = {**_values(name, file, fields, paper), **{key: value for key, value in sources.items() if value}}
    trained = trained_limits(start.model)
    model_values, problems = fill_model(start.values(), BackboneLimits(trained.max_length) if trained else None)
    filled = fill_stage(
        name,
        values,
        max_length=trained.max_length if trained else model_values["max_length"],
        memory_tokens=trained.memory_tokens if trained else model_values["memory_tokens"],
        memory_trained=trained is not None,
    )
    settings = build_settings(_kind(name), filled, f"{name} settings", problems)
    model = build_settings(ModelSettings, model_values, "model", problems)
    problems += filter(None, [missing_sources(filled)])
    limits = trained or TrainedLimits(model_values["max_length"], model_values["memory_tokens"])
    problems += _length_problems(name, filled.get("max_tokens"), limits) if model is not None else []
    if isinstance(settings, ContrastiveSettings):
        problems += [f"{name} settings: {problem}" for problem in settings.memory_problems(limits.memory_tokens)]
    if settings is None or model is None or problems:
        raise SettingsError(*problems)
    return settings, model


def unused_options(start: Start, folder: Path, settings: "StageSettings") -> list[str]:
    """Options of new encoders that were given, but say nothing of a trained model, such as `--layers 2`.

    Args:
        start: The model, and the options.
        folder: Folder of the trained model.
        settings: Of the stage; with `adapter: merge`, the rank is that of the new adapter.
    """
    options = {"--memory-tokens": start.memory_tokens, "--layers": start.layers, "--max-length": start.max_length}
    renewed = getattr(settings, "adapter", "keep") == "merge" and any(folder.glob("**/adapter"))
    if not (renewed and start.rank):
        options["--rank"] = start.rank
    return [f"{name} {value}" for name, value in options.items() if value is not None]


def _length_problems(name: str, max_tokens: Any, limits: "TrainedLimits") -> list[str]:
    """A message if the texts of stage 1 are longer than the model's input."""
    memory = 0 if name == "mntp" else limits.memory_tokens
    if not isinstance(max_tokens, int) or max_tokens + memory <= limits.max_length:
        return []
    beside = f" and {memory} memory tokens exceed" if memory else " exceeds"
    return [f"{name} settings: max_tokens {max_tokens}{beside} the model's max_length {limits.max_length}"]


def _values(name: str, file: Path | None, fields: Sequence[str], paper: bool) -> dict[str, Any]:
    """Fields that are given, and the paper's if those are asked for."""
    from llm2comp.errors import SettingsError
    from llm2comp.training.recipe_file import stage_values
    from llm2comp.training.settings_file import parse_yaml, read_fields, read_text_file

    values = stage_values(_PAPER, "compression" if name == "mntp" else name) if paper else {}
    if name == "mntp":
        values.pop("objective", None)
    if file is not None:
        if not file.is_file():
            raise SettingsError(f"no settings file {file}")
        values |= read_fields(read_text_file(file), str(file))
    for field in fields:
        key, separator, value = field.partition("=")
        if not separator or not key:
            raise typer.BadParameter(f"{field!r}: give FIELD=VALUE, such as steps=1000", param_hint="--set")
        values[key] = parse_yaml(value, f"--set {field}")
    return values


def _kind(name: str) -> "type[StageSettings]":
    from llm2comp.training.settings import CompressionSettings, ContrastiveSettings

    if name == "mntp":
        from llm2comp_benchmarks.systems.mntp.objective import MntpSettings

        return MntpSettings
    return CompressionSettings if name == "compression" else ContrastiveSettings
