"""Recipes: one YAML file that says how a model is made, from its backbone to its last stage."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from llm2comp.errors import SettingsError
from llm2comp.training.pairs.settings import PairSettings
from llm2comp.training.settings import CompressionSettings, ContrastiveSettings, ModelSettings, PretrainSettings
from llm2comp.training.settings_file import parse_yaml, read_text_file, to_settings

__all__ = ["Recipe", "read_recipe", "shipped_recipes", "stage_values"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A model and the stages it goes through, in this order; those that are None are left out."""

    name: str
    about: str
    """What it makes, and where it differs from its source."""
    model: ModelSettings
    pretrain: PretrainSettings | None = None
    derive: PairSettings | None = None
    """Training pairs derived from raw texts; stage 3 finds them as `{pairs}`."""
    compression: CompressionSettings | None = None
    unsupervised: ContrastiveSettings | None = None
    supervised: ContrastiveSettings | None = None
    derive_long: PairSettings | None = None
    """More derived pairs, of longer passages; `lengthen` finds them as `{long_pairs}`."""
    lengthen: ContrastiveSettings | None = None
    """Stage 3 once more, on longer passages: a small model trained on short ones alone reads long ones badly."""

    def __post_init__(self) -> None:
        if (self.model.backbone is None) == (self.pretrain is None):
            raise SettingsError(
                "give either model.backbone or pretrain: a recipe starts from a language model or makes one"
            )
        for name in ("unsupervised", "supervised", "lengthen"):
            stage: ContrastiveSettings | None = getattr(self, name)
            if stage is not None and bool(stage.corpora) != (name == "unsupervised"):
                raise SettingsError(f"{name} needs {'corpora' if name == 'unsupervised' else 'pairs'}")
        if self.lengthen and not self.supervised:
            raise SettingsError("lengthen continues supervised, which is not given")
        if not (self.compression or self.unsupervised or self.supervised):
            raise SettingsError(
                "give compression, unsupervised or supervised: a recipe without a stage makes no encoder"
            )
        if self.compression and self.compression.max_tokens + self.model.memory_tokens > self.model.max_length:
            raise SettingsError(
                f"compression.max_tokens {self.compression.max_tokens} and model.memory_tokens "
                f"{self.model.memory_tokens} "
                f"exceed model.max_length {self.model.max_length}"
            )
        if self.pretrain and self.model.max_length > self.pretrain.shape.max_positions:
            raise SettingsError(
                f"model.max_length {self.model.max_length} exceeds pretrain.shape.max_positions "
                f"{self.pretrain.shape.max_positions}"
            )


def shipped_recipes() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(
        entry.name.removesuffix(".yaml")
        for entry in files("llm2comp.recipes").iterdir()
        if entry.name.endswith(".yaml")
    )


def read_recipe(name_or_file: str | Path, *, data: Path | None = None, pairs: Path | None = None) -> Recipe:
    """A recipe, checked to the last field.

    Args:
        name_or_file: Name of a shipped recipe, or a YAML file.
        data: What `{data}` in the recipe stands for.
        pairs: What `{pairs}` stands for: the folder that derived pairs are written to; `{long_pairs}` is beside it.

    Raises:
        SettingsError: Naming the file and the field that is unknown, missing, of the wrong type or in contradiction to
            another.
    """
    places = {"{data}": data, "{pairs}": pairs, "{long_pairs}": pairs.with_name("long_pairs") if pairs else None}
    recipe = to_settings(Recipe, _values(name_or_file, places), where=str(name_or_file))
    for stage, derived, place in (("supervised", "derive", "{pairs}"), ("lengthen", "derive_long", "{long_pairs}")):
        settings: ContrastiveSettings | None = getattr(recipe, stage)
        if settings is not None and str(places[place]) in settings.pairs and getattr(recipe, derived) is None:
            raise SettingsError(
                f"{name_or_file}: {stage}.pairs reads {place}, which only {derived} makes; add {derived} or name the "
                "files"
            )
    return recipe


def _values(name_or_file: str | Path, places: Mapping[str, Path | None], above: tuple[str, ...] = ()) -> Any:
    """The plain values of a recipe, laid over those of the recipe it names as its `base`."""
    where = str(name_or_file)
    values = _placed(parse_yaml(_text(name_or_file), where), places, where)
    if isinstance(values, dict) and (base := values.pop("base", None)) is not None:
        if not isinstance(base, str) or base in above:
            raise SettingsError(
                f"{where}: base is {base!r}; give the name of another recipe, or a YAML file beside this one"
            )
        beside = Path(where).parent / base
        values = _laid_over(_values(beside if beside.is_file() else base, places, (*above, base)), values)
    return values


def _text(name_or_file: str | Path) -> str:
    name = str(name_or_file)
    if name in shipped_recipes():
        return files("llm2comp.recipes").joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    path = Path(name_or_file)
    if path.suffix not in (".yaml", ".yml") and not path.is_file():
        raise SettingsError(f"no recipe {name!r}: give a .yaml file or one of {', '.join(shipped_recipes())}")
    if not path.is_file():
        raise SettingsError(f"no recipe file {path}")
    return read_text_file(path)


def _placed(value: Any, places: Mapping[str, Path | None], where: str) -> Any:
    """The value with `{data}` and `{pairs}` replaced in its texts, `about` left alone."""
    if isinstance(value, dict):
        return {
            name: entry if name == "about" else _placed(entry, places, f"{where}: {name}")
            for name, entry in value.items()
        }
    if isinstance(value, list):
        return [_placed(entry, places, f"{where}[{place}]") for place, entry in enumerate(value)]
    if isinstance(value, str):
        for name, folder in places.items():
            if name in value:
                if folder is None:
                    raise SettingsError(
                        f"{where} reads texts from {name}: say where they are with --{name.strip('{}')} DIR"
                    )
                value = value.replace(name, str(folder))
    return value


def _laid_over(base: dict[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for name, value in values.items():
        below = merged.get(name)
        merged[name] = _laid_over(below, value) if isinstance(below, dict) and isinstance(value, Mapping) else value
    return merged


def stage_values(recipe: str, stage: str) -> dict[str, Any]:
    """The fields of one stage of a shipped recipe, its sources left out, as plain values."""
    values = parse_yaml(_text(recipe), recipe)[stage]
    return {name: value for name, value in values.items() if name not in ("corpora", "pairs", "heldout", "mixture")}
