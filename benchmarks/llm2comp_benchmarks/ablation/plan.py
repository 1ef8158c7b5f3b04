"""What an ablation compares: its plan, read from a YAML file, and the lineages that it asks for."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from llm2comp.errors import SettingsError
from llm2comp.training.recipe_file import Recipe, read_recipe
from llm2comp.training.settings_file import read_fields, read_text_file, to_settings
from llm2comp_benchmarks.ablation.lineages import Lineage
from llm2comp_benchmarks.systems.poolings import POOLINGS

__all__ = ["PARTS", "AblationPlan", "Choice", "lineages", "part_of", "read_plan"]

Pretext = Literal["distillation", "continuation", "reconstruction", "mntp", "none"]
PARTS = {"objectives": "objectives, one seed", "seeds": "more seeds", "memory": "memory tokens"}
"""Parts of a plan in the order of their worth, and their titles."""


@dataclass(frozen=True, kw_only=True)
class AblationPlan:
    """What is compared; read from a YAML file."""

    name: str
    about: str
    recipe: str
    """Backbone, texts and budgets: the name of a shipped recipe, or a file beside the plan."""
    pretexts: tuple[Pretext, ...]
    """Objectives of stage 1; `mntp` is LLM2Vec's; `none` goes into stage 2 untrained."""
    seeds: tuple[int, ...]
    """Of everything random: fresh weights, splits, order, dropout."""
    curve: tuple[int, ...]
    """Updates of stage 3 after which the model is measured; the last number is the end of the stage."""
    suite: str
    """Tasks: the name of a suite, or a file beside the plan; tasks of mteb are left out."""
    end_only: tuple[str, ...] = ()
    """Names of the tasks that are measured at the end of each stage only, not along the curve."""
    final_only: tuple[str, ...] = ()
    """Names of the tasks that are measured once a run: on the model that all its stages made."""
    baselines: tuple[str, ...] = ()
    """Poolings of the language model without training, measured once: mean, last-token, echo, prompteol, …"""
    memory_tokens: tuple[int, ...] = ()
    """Values of k that are compared, with distillation."""
    memory_seeds: tuple[int, ...] = (0,)
    """Seeds of that comparison."""
    cluster_threshold: float | None = 0.9
    """Cosine at which the finished models of distillation are also measured with clustered pooling; None: they are
    not."""

    def __post_init__(self) -> None:
        if not self.pretexts or not self.seeds or not self.curve:
            raise SettingsError("pretexts, seeds and curve need at least one entry each")
        if list(self.curve) != sorted(set(self.curve)) or self.curve[0] < 1:
            raise SettingsError(f"curve is {list(self.curve)}; give rising numbers of updates, each once")
        if unknown := [name for name in self.baselines if name not in POOLINGS]:
            raise SettingsError(f"baselines {', '.join(unknown)}: give some of {', '.join(POOLINGS)}")


def read_plan(name_or_file: str, *, data: Path | None, pairs: Path) -> tuple[AblationPlan, Recipe]:
    """The plan of a shipped ablation or of a YAML file, and its recipe.

    Args:
        name_or_file: Name or file.
        data: Folder with the texts of the recipe.
        pairs: Folder of the pairs that the recipe derives.

    Raises:
        SettingsError: The message names the file and the wrong field.
    """
    shipped = Path(str(files("llm2comp_benchmarks.ablation") / "plans"))
    path = shipped / f"{name_or_file}.yaml" if (shipped / f"{name_or_file}.yaml").is_file() else Path(name_or_file)
    if not path.is_file():
        raise SettingsError(f"no ablation {name_or_file!r}: give a .yaml file or the name of one in {shipped}")
    plan = to_settings(AblationPlan, read_fields(read_text_file(path), str(path)), where=str(path))
    recipe = read_recipe(_beside(path, plan.recipe), data=data, pairs=pairs)
    steps = recipe.supervised.steps if recipe.supervised else 0
    if plan.curve[-1] != steps:
        raise SettingsError(
            f"{path}: curve ends at {plan.curve[-1]} updates, stage 3 of the recipe at {steps}; they must agree"
        )
    return replace(plan, suite=_beside(path, plan.suite)), recipe


def _beside(path: Path, name: str) -> str:
    """The file of this name beside `path`, if there is one; else the name."""
    file = path.parent / name
    return str(file) if file.is_file() else name


def lineages(plan: AblationPlan, k: int) -> Iterator[Lineage]:
    """Every lineage to be trained: the pretexts seed by seed, then the other numbers of memory tokens."""
    for seed in plan.seeds:
        for pretext in plan.pretexts:
            yield Lineage(pretext, 0 if pretext == "mntp" else k, seed)
    for seed in plan.memory_seeds:
        for other in plan.memory_tokens:
            if other != k or seed not in plan.seeds:
                yield Lineage("distillation", other, seed)


def part_of(plan: AblationPlan, lineage: Lineage, k: int) -> str:
    """Key in `PARTS` of the part of the plan that a lineage belongs to."""
    if lineage.pretext in POOLINGS:
        return "objectives"
    if lineage.memory_tokens not in (0, k) or lineage.seed not in plan.seeds:
        return "memory"
    return "objectives" if lineage.seed == plan.seeds[0] else "seeds"


@dataclass(frozen=True)
class Choice:
    """Which lineages of a plan are run.

    Attributes:
        seeds: Only these; empty: all.
        pretexts: Only these and these baselines; empty: all.
        memory: Only the numbers of memory tokens that are compared, or none of them; None: all.
    """

    seeds: Sequence[int] = ()
    pretexts: Sequence[str] = ()
    memory: bool | None = None

    def lineages(self, plan: AblationPlan, k: int) -> list[Lineage]:
        """The chosen lineages.

        Raises:
            SettingsError: A name that the plan does not have.
        """
        _check_chosen("seeds", self.seeds, (*plan.seeds, *plan.memory_seeds))
        _check_chosen("pretexts", self.pretexts, (*plan.pretexts, *plan.baselines))
        return [
            one
            for one in lineages(plan, k)
            if (not self.seeds or one.seed in self.seeds)
            and (not self.pretexts or one.pretext in self.pretexts)
            and (self.memory is None or self.memory == (one.memory_tokens not in (0, k)))
        ]

    def baselines(self, plan: AblationPlan) -> list[str]:
        """The chosen baselines; they go with the first seed."""
        if self.memory or (self.seeds and plan.seeds[0] not in self.seeds):
            return []
        return [name for name in plan.baselines if not self.pretexts or name in self.pretexts]


def _check_chosen(field: str, chosen: Sequence[Any], known: Sequence[Any]) -> None:
    if unknown := [str(one) for one in chosen if one not in known]:
        raise SettingsError(f"{field} {', '.join(unknown)}: the plan has {', '.join(map(str, dict.fromkeys(known)))}")
