"""Which pretext makes the better encoder: all pretexts from one backbone, on the same texts, updates and seeds.

`llm2comp bench ablation tiny -o runs/ablation --data DATA --results benchmarks/results/ablation` runs it; after an
interruption the same command continues. Each model is measured after its pretext, after stage 2, and at several numbers
of updates of stage 3, into its own result file (see `benchmarks/results/README.md`). Two processes can share the work
if each has its own seeds or pretexts.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from llm2comp.corpus.read import read_corpus
from llm2comp.errors import SettingsError
from llm2comp.training.recipe_file import Recipe, read_recipe
from llm2comp.training.settings_file import read_fields, read_text_file, to_settings
from llm2comp.training.sources import check_sources
from llm2comp.training.splits import passages
from llm2comp_benchmarks.ablation.lineages import Lineage, train_lineage
from llm2comp_benchmarks.ablation.measure import Measurer
from llm2comp_benchmarks.evaluate.suites import read_suite

_HELDOUT_TEXTS = 1000
_logger = logging.getLogger(__name__)

__all__ = ["AblationPlan", "ablate", "lineages", "read_plan", "run_ablation"]

Pretext = Literal["distillation", "continuation", "reconstruction", "mntp", "none"]


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
    memory_tokens: tuple[int, ...] = ()
    """Values of k that are compared, with distillation."""
    memory_seeds: tuple[int, ...] = (0,)
    """Seeds of that comparison."""
    cluster_threshold: float = 0.9
    """Cosine at which the finished models of distillation are also measured with clustered pooling."""

    def __post_init__(self) -> None:
        if not self.pretexts or not self.seeds or not self.curve:
            raise SettingsError("pretexts, seeds and curve need at least one entry each")
        if list(self.curve) != sorted(set(self.curve)) or self.curve[0] < 1:
            raise SettingsError(f"curve is {list(self.curve)}; give rising numbers of updates, each once")


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


def run_ablation(plan: AblationPlan, recipe: Recipe, output: Path, measurer: Measurer, chosen: list[Lineage]) -> None:
    """Trains and measures the chosen lineages; what is finished is not done again."""
    from llm2comp.training.pairs.derive import derive_pairs
    from llm2comp.training.pretrain import pretrain

    backbone: str | Path | None = recipe.model.backbone
    if recipe.pretrain is not None:
        backbone = pretrain(recipe.pretrain, output / "pretrain")
    assert backbone is not None  # a recipe names one or makes one
    if recipe.derive is not None and not (output / "pairs").is_dir():
        derive_pairs(recipe.derive, output / "pairs")
    for lineage in chosen:
        _logger.info("%s", lineage.name)
        for stage in train_lineage(lineage, recipe, backbone, output / lineage.name, plan.curve):
            measurer.measure(lineage, stage)
            if lineage.pretext == "distillation" and stage.name == "supervised" and stage.finished:
                measurer.measure(
                    lineage, replace(stage, pooling={"mode": "cluster", "threshold": plan.cluster_threshold})
                )


def ablate(
    ablation: str,
    output: Path,
    results: Path,
    data: Path,
    *,
    seeds: Sequence[int] = (),
    pretexts: Sequence[str] = (),
    analysis: bool = True,
    memory: bool | None = None,
) -> None:
    """Trains and measures what an ablation compares; after an interruption the same call continues.

    Args:
        ablation: Name of a shipped ablation, or a YAML file.
        output: Folder of the models.
        results: Folder of the result files.
        data: Folder with the texts of the recipe and the sets to measure on, in `eval/`.
        seeds: Only these; empty: all.
        pretexts: Only these; empty: all.
        analysis: Whether the embeddings of each model are described too.
        memory: Only the numbers of memory tokens that are compared, or none of them; None: all.

    Raises:
        SettingsError: A name that the plan does not have, or a mistake in the plan or its recipe.
    """
    plan, recipe = read_plan(ablation, data=data, pairs=output / "pairs")
    _check_chosen("seeds", seeds, (*plan.seeds, *plan.memory_seeds))
    _check_chosen("pretexts", pretexts, plan.pretexts)
    check_sources(recipe, made={str(output / "pairs"), str(output / "long_pairs")})
    results.mkdir(parents=True, exist_ok=True)
    k = recipe.model.memory_tokens
    chosen = [
        one
        for one in lineages(plan, k)
        if (not seeds or one.seed in seeds)
        and (not pretexts or one.pretext in pretexts)
        and (memory is None or memory == (one.memory_tokens not in (0, k)))
    ]
    tasks = read_suite(plan.suite).read_own(data / "eval")
    measurer = Measurer(
        results, tasks, _budgets(plan, recipe), _heldout(recipe) if analysis else [], end_only=plan.end_only
    )
    run_ablation(plan, recipe, output, measurer, chosen)


def _check_chosen(field: str, chosen: Sequence[Any], known: Sequence[Any]) -> None:
    if unknown := [str(one) for one in chosen if one not in known]:
        raise SettingsError(f"{field} {', '.join(unknown)}: the plan has {', '.join(map(str, dict.fromkeys(known)))}")


def _budgets(plan: AblationPlan, recipe: Recipe) -> dict[str, Any]:
    """Name of the ablation and samples of each stage, for the result files."""
    stages = {"pretext": recipe.compression, "unsupervised": recipe.unsupervised, "supervised": recipe.supervised}
    return {
        "ablation": plan.name,
        "samples": {name: stage.steps * stage.batch_size for name, stage in stages.items() if stage is not None},
    }


def _heldout(recipe: Recipe) -> list[str]:
    """Texts that no stage was trained on; their embeddings are described."""
    assert recipe.compression is not None
    if recipe.compression.heldout is None:
        return []
    texts = passages(read_corpus(recipe.compression.heldout), recipe.compression.min_characters)
    return [text for _, text in islice(texts, _HELDOUT_TEXTS)]
