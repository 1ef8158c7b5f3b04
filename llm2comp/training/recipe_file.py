"""Recipes: YAML files that describe how a model is made, from its backbone to its last stage."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from llm2comp.errors import SettingsError
from llm2comp.training.defaults import fill_recipe
from llm2comp.training.negatives.settings import RecipeMiningSettings
from llm2comp.training.pairs.settings import PairSettings
from llm2comp.training.settings import CompressionSettings, ContrastiveSettings, ModelSettings, PretrainSettings
from llm2comp.training.settings_file import build_settings, parse_yaml, read_text_file
from llm2comp.training.sources import missing_sources
from llm2comp.training.whitening_settings import WhiteningSettings

__all__ = ["STAGES", "Recipe", "read_recipe", "shipped_recipes", "stage_values"]

STAGES = ("compression", "unsupervised", "supervised", "lengthen")
"""Fields of a recipe that are stages of an encoder, in the order they run."""

_MADE_PAIRS = (
    ("supervised", "derive", "{pairs}"),
    ("lengthen", "derive_long", "{long_pairs}"),
    ("lengthen", "mine", "{mined_pairs}"),
    ("whitening", "derive", "{pairs}"),
    ("whitening", "derive_long", "{long_pairs}"),
)
"""Stages that read pairs, the fields that make them, and their place."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings of a model and its stages, in the order they run; stages that are None are left out."""

    name: str
    """Name of the recipe; in a file, the file's without its suffix if it has none."""
    about: str
    """Description of the model, and of where the recipe differs from its source."""
    model: ModelSettings
    """The encoder."""
    pretrain: PretrainSettings | None = None
    """Stage 0: a backbone trained from raw text, instead of `model.backbone`."""
    derive: PairSettings | None = None
    """Training pairs derived from raw texts; stage 3 reads them as `{pairs}`."""
    compression: CompressionSettings | None = None
    """Stage 1."""
    unsupervised: ContrastiveSettings | None = None
    """Stage 2, on sentences of corpora."""
    supervised: ContrastiveSettings | None = None
    """Stage 3, on pairs."""
    mine: RecipeMiningSettings | None = None
    """Hard negatives that the model of stage 3 finds for derived pairs; `lengthen` reads the pairs of all kinds, mined
    and others, as `{mined_pairs}`."""
    derive_long: PairSettings | None = None
    """Further derived pairs, with longer passages; `lengthen` reads them as `{long_pairs}`."""
    lengthen: ContrastiveSettings | None = None
    """Stage 3 again, on longer passages or with mined negatives."""
    whitening: WhiteningSettings | None = None
    """A map of the embeddings of the last stage's model, fitted to texts."""

    def __post_init__(self) -> None:
        if problems := list(self._problems()):
            raise SettingsError(*problems)

    def _problems(self) -> Iterator[str]:
        """Contradictions between the stages, one sentence each."""
        if (self.model.backbone is None) == (self.pretrain is None):
            yield "give either model.backbone or pretrain: a recipe starts from a language model or makes one"
        for name in ("unsupervised", "supervised", "lengthen"):
            stage: ContrastiveSettings | None = getattr(self, name)
            if stage is not None and bool(stage.corpora) != (name == "unsupervised"):
                yield f"{name} needs {'corpora' if name == 'unsupervised' else 'pairs'}"
            if stage is not None:
                yield from (f"{name}: {problem}" for problem in stage.memory_problems(self.model.memory_tokens))
        if self.mine and not (self.derive and self.supervised and self.lengthen):
            yield "mine takes the pairs of derive and the model of supervised, for lengthen; give all three"
        if self.lengthen and not self.supervised:
            yield "lengthen continues supervised, which is not given"
        if not (self.compression or self.unsupervised or self.supervised):
            yield "give compression, unsupervised or supervised: a recipe without a stage makes no encoder"
        if self.compression and self.compression.max_tokens + self.model.memory_tokens > self.model.max_length:
            yield (
                f"compression.max_tokens {self.compression.max_tokens} and model.memory_tokens "
                f"{self.model.memory_tokens} exceed model.max_length {self.model.max_length}"
            )
        if self.pretrain and self.model.max_length > self.pretrain.shape.max_positions:
            yield (
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


def read_recipe(
    name_or_file: str | Path, *, data: Path | None = None, pairs: Path | None = None, sources: bool = False
) -> Recipe:
    """A recipe, with every field checked; fields that are left out get the defaults of single stages.

    Args:
        name_or_file: Name of a shipped recipe, or a YAML file.
        data: Folder that replaces `{data}` in the recipe.
        pairs: Folder that replaces `{pairs}`, where derived pairs are written; `{long_pairs}` and `{mined_pairs}` are
            beside it.
        sources: Whether the files and folders of texts that it names must exist.

    Raises:
        SettingsError: All fields that are unknown, missing, of the wrong type or in contradiction to others, of all
            stages, and missing files; each with the name of the recipe's file.
    """
    where = str(name_or_file)
    places = {"{data}": data, "{pairs}": pairs}
    places |= {f"{{{name}}}": pairs.with_name(name) if pairs else None for name in ("long_pairs", "mined_pairs")}
    values = _values(name_or_file, places)
    problems: list[str] = []
    if isinstance(values, Mapping):
        values = {"name": Path(where).stem, "about": "", **values}
        values, lengths = fill_recipe(values)
        problems += [f"{where}: {problem}" for problem in (*lengths, *_pairs_problems(values, places))]
        if sources:
            missing = missing_sources(values, made=map(str, places.values()))
            problems += [f"{where}: {missing}"] if missing else []
    recipe = build_settings(Recipe, values, where, problems)
    if recipe is None or problems:
        raise SettingsError(*problems)
    return recipe


def _pairs_problems(values: Mapping[str, Any], places: Mapping[str, Path | None]) -> Iterator[str]:
    """Stages that read derived pairs which nothing in the recipe derives."""
    for stage, derived, place in _MADE_PAIRS:
        fields = values.get(stage)
        pairs = fields.get("pairs") if isinstance(fields, Mapping) else None
        if isinstance(pairs, list) and str(places[place]) in pairs and values.get(derived) is None:
            yield f"{stage}.pairs reads {place}, which only {derived} makes; add {derived} or name the files"


def _values(name_or_file: str | Path, places: Mapping[str, Path | None], above: tuple[str, ...] = ()) -> Any:
    """Plain values of a recipe, merged over those of the recipe named as its `base`."""
    where = str(name_or_file)
    values = _with_folders(parse_yaml(_text(name_or_file), where), places, where)
    if isinstance(values, dict) and (base := values.pop("base", None)) is not None:
        if not isinstance(base, str) or base in above:
            raise SettingsError(
                f"{where}: base is {base!r}; give the name of another recipe, or a YAML file beside this one"
            )
        beside = Path(where).parent / base
        values = _merged(_values(beside if beside.is_file() else base, places, (*above, base)), values)
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


def _with_folders(value: Any, places: Mapping[str, Path | None], where: str) -> Any:
    """The value with `{data}`, `{pairs}` and `{long_pairs}` replaced in all texts except `about`."""
    if isinstance(value, dict):
        return {
            name: entry if name == "about" else _with_folders(entry, places, f"{where}: {name}")
            for name, entry in value.items()
        }
    if isinstance(value, list):
        return [_with_folders(entry, places, f"{where}[{place}]") for place, entry in enumerate(value)]
    if isinstance(value, str):
        for name, folder in places.items():
            if name in value:
                if folder is None:
                    raise SettingsError(
                        f"{where} reads texts from {name}: say where they are with --{name.strip('{}')} DIR"
                    )
                value = value.replace(name, str(folder))
    return value


def _merged(base: dict[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for name, value in values.items():
        below = merged.get(name)
        merged[name] = _merged(below, value) if isinstance(below, dict) and isinstance(value, Mapping) else value
    return merged


def stage_values(recipe: str, stage: str) -> dict[str, Any]:
    """Fields of one stage of a shipped recipe as plain values, without its sources of text."""
    values = parse_yaml(_text(recipe), recipe)[stage]
    return {name: value for name, value in values.items() if name not in ("corpora", "pairs", "heldout", "mixture")}
