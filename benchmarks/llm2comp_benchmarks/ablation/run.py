"""Which pretext makes the better encoder: every pretext from one backbone, with the same texts, updates and seeds, through all three stages.

`python -m llm2comp_benchmarks.ablation.run tiny -o runs/ablation --data DATA --results benchmarks/results/ablation`
runs it; interrupted, the same command goes on where it was. Each model is measured after its pretext, after stage 2,
and at several numbers of updates of stage 3, into a result file of its own (see `benchmarks/results/README.md`). Two
processes may share the work, each with seeds or pretexts of its own.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.resources import files
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from llm2comp import keep_freed_memory
from llm2comp.corpus.read import read_corpus
from llm2comp.errors import SettingsError
from llm2comp.training.recipe_file import Recipe, read_recipe
from llm2comp.training.settings_file import read_fields, read_text_file, to_settings
from llm2comp.training.splits import passages
from llm2comp_benchmarks.ablation.lineages import Lineage, train_lineage
from llm2comp_benchmarks.ablation.measure import Measurer
from llm2comp_benchmarks.evaluate.suites import read_suite

_HELDOUT_TEXTS = 1000
_logger = logging.getLogger(__name__)

__all__ = ["Ablation", "lineages", "read_ablation", "run_ablation"]

Pretext = Literal["distillation", "continuation", "reconstruction", "mntp", "none"]


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """What is compared."""

    name: str
    about: str
    recipe: str
    """Backbone, texts and budgets: the name of a shipped recipe, or a file beside this one."""
    pretexts: tuple[Pretext, ...]
    """Objectives of stage 1; `mntp` is LLM2Vec's; `none` goes into stage 2 untrained."""
    seeds: tuple[int, ...]
    """Of everything random: fresh weights, splits, order, dropout."""
    curve: tuple[int, ...]
    """Updates of stage 3 after which the model is measured; the last is the end of the stage."""
    suite: str
    """What is measured: the name of a suite, or a file beside this one; tasks of mteb are left out."""
    end_only: tuple[str, ...] = ()
    """Tasks measured at the end of each stage only, not along the curve."""
    memory_tokens: tuple[int, ...] = ()
    """k that are compared, with distillation."""
    memory_seeds: tuple[int, ...] = (0,)
    cluster_threshold: float = 0.9
    """The finished models of distillation are measured with clustered pooling too, at this cosine."""

    def __post_init__(self) -> None:
        if not self.pretexts or not self.seeds or not self.curve:
            raise SettingsError("pretexts, seeds and curve need at least one entry each")
        if list(self.curve) != sorted(set(self.curve)) or self.curve[0] < 1:
            raise SettingsError(f"curve is {list(self.curve)}; give rising numbers of updates, each once")


def read_ablation(name_or_file: str, *, data: Path | None, pairs: Path) -> tuple[Ablation, Recipe]:
    """An ablation by name or YAML file, and the recipe it is made of.

    Raises:
        SettingsError: Naming the file and the field that is wrong.
    """
    shipped = Path(str(files("llm2comp_benchmarks") / "ablations"))
    path = shipped / f"{name_or_file}.yaml" if (shipped / f"{name_or_file}.yaml").is_file() else Path(name_or_file)
    if not path.is_file():
        raise SettingsError(f"no ablation {name_or_file!r}: give a .yaml file or the name of one in {shipped}")
    ablation = to_settings(Ablation, read_fields(read_text_file(path), str(path)), where=str(path))
    recipe = read_recipe(_beside(path, ablation.recipe), data=data, pairs=pairs)
    steps = recipe.supervised.steps if recipe.supervised else 0
    if ablation.curve[-1] != steps:
        raise SettingsError(
            f"{path}: curve ends at {ablation.curve[-1]} updates, stage 3 of the recipe at {steps}; they must agree"
        )
    return replace(ablation, suite=_beside(path, ablation.suite)), recipe


def _beside(path: Path, name: str) -> str:
    """The file of this name in the folder of the path, if there is one; else the name."""
    file = path.parent / name
    return str(file) if file.is_file() else name


def lineages(ablation: Ablation, k: int) -> Iterator[Lineage]:
    """Every model to be trained: the pretexts seed by seed, then the other numbers of memory tokens."""
    for seed in ablation.seeds:
        for pretext in ablation.pretexts:
            yield Lineage(pretext, 0 if pretext == "mntp" else k, seed)
    for seed in ablation.memory_seeds:
        for other in ablation.memory_tokens:
            if other != k or seed not in ablation.seeds:
                yield Lineage("distillation", other, seed)


def run_ablation(ablation: Ablation, recipe: Recipe, output: Path, measurer: Measurer, wanted: list[Lineage]) -> None:
    """Trains and measures the lineages wanted; what is finished is not done again."""
    from llm2comp.training.pairs.derive import derive_pairs
    from llm2comp.training.pretrain import pretrain

    backbone: str | Path | None = recipe.model.backbone
    if recipe.pretrain is not None:
        backbone = pretrain(recipe.pretrain, output / "pretrain")
    assert backbone is not None  # a recipe names one or makes one
    if recipe.derive is not None and not (output / "pairs").is_dir():
        derive_pairs(recipe.derive, output / "pairs")
    for lineage in wanted:
        _logger.info("%s", lineage.name)
        for stage in train_lineage(lineage, recipe, backbone, output / lineage.name, ablation.curve):
            measurer.measure(lineage, stage)
            if lineage.pretext == "distillation" and stage.name == "supervised" and stage.finished:
                measurer.measure(
                    lineage, replace(stage, pooling={"mode": "cluster", "threshold": ablation.cluster_threshold})
                )


def main(
    ablation: Annotated[str, typer.Argument(help="Name of a shipped ablation (tiny), or a YAML file.")],
    output: Annotated[Path, typer.Option("-o", help="Folder of the models.")],
    results: Annotated[Path, typer.Option(help="Folder of the result files.")],
    data: Annotated[
        Path, typer.Option(help="Folder with the texts of the recipe and the sets to measure on, in eval/.")
    ],
    seeds: Annotated[list[int] | None, typer.Option(help="Only these; may be repeated.")] = None,
    pretexts: Annotated[list[str] | None, typer.Option(help="Only these; may be repeated.")] = None,
    analysis: Annotated[bool, typer.Option(help="Describe the embeddings of each model too.")] = True,
    memory: Annotated[
        bool | None, typer.Option(help="Only the numbers of memory tokens that are compared, or none of them.")
    ] = None,
) -> None:
    """Train and measure what the ablation compares; interrupted, it goes on where it was."""
    keep_freed_memory()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    plan, recipe = read_ablation(ablation, data=data, pairs=output / "pairs")
    results.mkdir(parents=True, exist_ok=True)
    k = recipe.model.memory_tokens
    wanted = [
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
    run_ablation(plan, recipe, output, measurer, wanted)


def _budgets(ablation: Ablation, recipe: Recipe) -> dict[str, Any]:
    """What every pretext was given, as a result file tells it."""
    stages = {"pretext": recipe.compression, "unsupervised": recipe.unsupervised, "supervised": recipe.supervised}
    return {
        "ablation": ablation.name,
        "samples": {name: stage.steps * stage.batch_size for name, stage in stages.items() if stage is not None},
    }


def _heldout(recipe: Recipe) -> list[str]:
    """Texts that no stage was trained on, to describe embeddings of."""
    assert recipe.compression is not None
    if recipe.compression.heldout is None:
        return []
    found = passages(read_corpus(recipe.compression.heldout), recipe.compression.min_characters)
    return [text for _, text in islice(found, _HELDOUT_TEXTS)]


if __name__ == "__main__":
    typer.run(main)
