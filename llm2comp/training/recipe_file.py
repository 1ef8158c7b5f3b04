"""Recipes: one YAML file that says how a model is made, from its backbone to its last stage."""

import types
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from llm2comp.errors import SettingsError
from llm2comp.training.pair_settings import PairSettings
from llm2comp.training.settings import CompressionSettings, ContrastiveSettings, ModelSettings, PretrainSettings

__all__ = ["Recipe", "read_recipe", "shipped_recipes", "stage_values", "to_settings"]

_Settings = TypeVar("_Settings")


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

    def __post_init__(self) -> None:
        if (self.model.backbone is None) == (self.pretrain is None):
            raise SettingsError("give either model.backbone or pretrain: a recipe starts from a language model or makes one")
        for name in ("unsupervised", "supervised"):
            stage: ContrastiveSettings | None = getattr(self, name)
            if stage is not None and bool(stage.corpora) != (name == "unsupervised"):
                raise SettingsError(f"{name} needs {'corpora' if name == 'unsupervised' else 'pairs'}")


def shipped_recipes() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(entry.name.removesuffix(".yaml") for entry in files("llm2comp.recipes").iterdir() if entry.name.endswith(".yaml"))


def read_recipe(name_or_file: str | Path, *, data: Path | None = None, pairs: Path | None = None) -> Recipe:
    """A recipe, checked to the last field.

    Args:
        name_or_file: Name of a shipped recipe, or a YAML file.
        data: What `{data}` in the recipe stands for.
        pairs: What `{pairs}` stands for: the folder that derived pairs are written to.

    Raises:
        SettingsError: Naming the file and the field that is unknown, missing, of the wrong type or in contradiction to another.
    """
    values = _values(name_or_file, {"{data}": data, "{pairs}": pairs})
    return to_settings(Recipe, values, where=str(name_or_file))


def _values(name_or_file: str | Path, places: Mapping[str, Path | None]) -> Any:
    """The plain values of a recipe, laid over those of the recipe it names as its `base`."""
    path = Path(name_or_file)
    if path.suffix in (".yaml", ".yml") or path.exists():
        if not path.is_file():
            raise SettingsError(f"no recipe file {path}")
        text = path.read_text(encoding="utf-8")
    elif str(name_or_file) in shipped_recipes():
        text = files("llm2comp.recipes").joinpath(f"{name_or_file}.yaml").read_text(encoding="utf-8")
    else:
        raise SettingsError(f"no recipe {str(name_or_file)!r}: give a .yaml file or one of {', '.join(shipped_recipes())}")
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SettingsError(f"{name_or_file}: {' '.join(str(error).split())}") from error
    values = _placed(values, places, str(name_or_file))
    if isinstance(values, dict) and (base := values.pop("base", None)) is not None:
        values = _laid_over(_values(base, places), values)
    return values


def _placed(value: Any, places: Mapping[str, Path | None], where: str) -> Any:
    """The value with `{data}` and `{pairs}` replaced in its texts, `about` left alone."""
    if isinstance(value, dict):
        return {name: entry if name == "about" else _placed(entry, places, where) for name, entry in value.items()}
    if isinstance(value, list):
        return [_placed(entry, places, where) for entry in value]
    if isinstance(value, str):
        for name, folder in places.items():
            if name in value:
                if folder is None:
                    raise SettingsError(f"recipe {where} reads texts from {name}: say where they are with --{name.strip('{}')} DIR")
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
    values = yaml.safe_load(files("llm2comp.recipes").joinpath(f"{recipe}.yaml").read_text(encoding="utf-8"))[stage]
    return {name: value for name, value in values.items() if name not in ("corpora", "pairs", "heldout", "mixture")}


def to_settings(kind: type[_Settings], values: Any, *, where: str) -> _Settings:
    """A settings object out of plain YAML values; every error names the field.

    Raises:
        SettingsError: If a field is unknown, missing or of the wrong type, or the settings contradict each other.
    """
    if not isinstance(values, Mapping):
        raise SettingsError(f"{where}: expected fields with values, found {type(values).__name__}")
    hints = get_type_hints(kind)
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(set(values) - set(known)):
        raise SettingsError(f"{where}: unknown field {', '.join(map(str, unknown))}; known: {', '.join(known)}")
    needed = {name for name, field in known.items() if field.default is MISSING and field.default_factory is MISSING}
    if missing := sorted(needed - set(values)):
        raise SettingsError(f"{where}: {', '.join(missing)} must be given")
    converted = {name: _convert(value, hints[name], f"{where}: {name}") for name, value in values.items()}
    try:
        return kind(**converted)
    except SettingsError as error:
        raise SettingsError(error.args[0] if str(error).startswith(where) else f"{where}: {error}") from error


def _convert(value: Any, hint: Any, where: str) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return _convert(value, next(argument for argument in arguments if argument is not type(None)), where)
    if is_dataclass(hint) and isinstance(hint, type):
        return to_settings(hint, value, where=where)
    if origin is Literal:
        if value not in arguments:
            raise SettingsError(f"{where} is {value!r}; give {' or '.join(map(str, arguments))}")
        return value
    if origin is tuple and isinstance(value, list):
        inner = arguments[0]
        return tuple(_convert(entry, inner, f"{where}[{place}]") for place, entry in enumerate(value))
    if origin in (Mapping, dict) and isinstance(value, Mapping):
        return {str(name): _convert(entry, arguments[1], f"{where}.{name}") for name, entry in value.items()}
    if hint is float and isinstance(value, (int, str)) and not isinstance(value, bool):
        try:
            return float(value)  # YAML reads 1e-4 as text
        except ValueError:
            pass
    if hint is Any or (isinstance(hint, type) and isinstance(value, hint) and not (hint is int and isinstance(value, bool))):
        return value
    raise SettingsError(f"{where} is {value!r}; expected {getattr(hint, '__name__', str(hint))}")
