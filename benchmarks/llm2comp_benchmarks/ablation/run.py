"""Which pretext makes the better encoder: all pretexts from one backbone, on the same texts, updates and seeds.

`llm2comp bench ablation tiny -o runs/ablation --data DATA --results benchmarks/results/ablation` runs it; after an
interruption the same command continues. Each model is measured after its pretext, after stage 2, and at several numbers
of updates of stage 3, into its own result file (see `benchmarks/results/README.md`). Two processes can share the work
if each has its own seeds or pretexts.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from llm2comp.backbone.loading import check_language_model
from llm2comp.corpus.read import read_corpus
from llm2comp.errors import SettingsError
from llm2comp.training.recipe_file import Recipe
from llm2comp.training.sources import check_sources
from llm2comp.training.splits import passages
from llm2comp_benchmarks.ablation.forecast import Forecast, clustered, models_of, steps_of
from llm2comp_benchmarks.ablation.lineages import Lineage, Stage, mark_of, stage_settings, train_lineage, untrained
from llm2comp_benchmarks.ablation.measure import Measurer, Reader
from llm2comp_benchmarks.ablation.pace import read_pace
from llm2comp_benchmarks.ablation.plan import AblationPlan, Choice, lineages, read_plan
from llm2comp_benchmarks.ablation.rates import Rates
from llm2comp_benchmarks.evaluate.suites import read_suite

_HELDOUT_TEXTS = 1000
_logger = logging.getLogger(__name__)

__all__ = ["AblationPlan", "Choice", "ablate", "forecast", "lineages", "read_plan", "run_ablation"]


def run_ablation(
    plan: AblationPlan,
    recipe: Recipe,
    output: Path,
    measurer: Measurer,
    chosen: list[Lineage],
    *,
    baselines: Sequence[str] = (),
    predict: Callable[[str | Path], Forecast] | None = None,
) -> None:
    """Trains and measures the chosen lineages and baselines; what is finished is not done again.

    Args:
        plan: The plan.
        recipe: Its recipe.
        output: Folder of the models.
        measurer: Measures each model.
        chosen: The lineages.
        baselines: Poolings of the language model without training.
        predict: The forecast of what is left, from the language model; its line is logged before the first step and
            after each that took time. None: no forecast.
    """
    from llm2comp.training.pairs.derive import derive_pairs

    backbone = _backbone(recipe, output)
    if recipe.derive is not None and not (output / "pairs").is_dir():
        check_language_model(backbone, recipe.model.revision, sha256=recipe.model.backbone_sha256)
        derive_pairs(recipe.derive, output / "pairs")
    left = predict(backbone) if predict is not None else Forecast([])
    if left.steps:
        _logger.info("%s", left.line())
    for lineage, stage in _models(plan, recipe, output, chosen, baselines, backbone, measurer):
        measurer.measure(lineage, stage, _training(recipe, lineage, stage, output))
        before, left = left, predict(backbone) if predict is not None else left
        if left.steps_left < before.steps_left:
            _logger.info("%s: %s", measurer.path(lineage, stage).stem, left.line())


def _backbone(recipe: Recipe, output: Path) -> str | Path:
    """The language model that the recipe names or makes."""
    from llm2comp.training.pretrain import pretrain

    if recipe.pretrain is not None:
        return pretrain(recipe.pretrain, output / "pretrain")
    assert recipe.model.backbone is not None  # a recipe names one or makes one
    return recipe.model.backbone


def _models(
    plan: AblationPlan,
    recipe: Recipe,
    output: Path,
    chosen: Sequence[Lineage],
    baselines: Sequence[str],
    backbone: str | Path,
    measurer: Measurer,
) -> Iterator[tuple[Lineage, Stage]]:
    """Every model to be measured, as soon as it is trained; the baselines follow the first seed."""
    waiting = list(baselines)
    for lineage in chosen:
        if lineage.seed != chosen[0].seed:
            yield from (untrained(pooling, backbone) for pooling in waiting)
            waiting = []
        folder = output / lineage.name
        if measurer.is_settled(lineage, models_of(plan, recipe, lineage, folder), folder):
            _logger.info("%s: measured before, so not trained again", lineage.name)
            continue
        _logger.info("%s", lineage.name)
        for stage in train_lineage(lineage, recipe, backbone, folder, plan.curve):
            yield from ((lineage, measured) for measured in (stage, *clustered(plan, lineage, stage)))
    yield from (untrained(pooling, backbone) for pooling in waiting)


def _training(recipe: Recipe, lineage: Lineage, stage: Stage, output: Path) -> dict[str, Any] | None:
    """Updates and seconds of the last stage of a model, for its result file."""
    if stage.name == "untrained" or not stage.finished:
        return None
    updates = stage_settings(recipe, lineage)[stage.name].steps
    pace = read_pace(output / lineage.name / stage.name, updates, mark_of(lineage))
    if pace.seconds is None:
        return None
    return {
        "updates": updates,
        "seconds_per_update": round(pace.seconds, 4),
        "seconds": round(updates * pace.seconds, 1),
    }


def ablate(
    ablation: str,
    output: Path,
    results: Path,
    data: Path,
    *,
    choice: Choice | None = None,
    analysis: bool = True,
) -> None:
    """Trains and measures what an ablation compares; after an interruption the same call continues.

    Training starts at once. How much is left is logged first and after each step, from the times of what has run in
    the folders; `forecast` probes what has not.

    Args:
        ablation: Name of a shipped ablation, or a YAML file.
        output: Folder of the models.
        results: Folder of the result files.
        data: Folder with the texts of the recipe and the sets to measure on, in `eval/`.
        choice: Which lineages are run; None: all.
        analysis: Whether the embeddings of each model are described too.

    Raises:
        SettingsError: A name that the plan does not have, or a mistake in the plan or its recipe.
    """
    prepared = _Prepared(ablation, output, results, data, choice or Choice(), analysis)
    results.mkdir(parents=True, exist_ok=True)
    run_ablation(
        prepared.plan,
        prepared.recipe,
        output,
        prepared.measurer,
        prepared.chosen,
        baselines=prepared.baselines,
        predict=partial(prepared.forecast, probe=False),
    )


def forecast(
    ablation: str,
    output: Path,
    results: Path,
    data: Path,
    *,
    choice: Choice | None = None,
    analysis: bool = True,
) -> Forecast:
    """What an ablation takes and what is left of it; arguments and errors as `ablate`. Nothing is trained or written.

    Raises:
        SettingsError: The language model is still to be trained, so that no step of it can be measured.
    """
    prepared = _Prepared(ablation, output, results, data, choice or Choice(), analysis)
    backbone = prepared.recipe.model.backbone or output / "pretrain" / "backbone"
    if prepared.recipe.pretrain is not None and not Path(backbone).is_dir():
        raise SettingsError(
            f"{backbone}: the language model of {ablation} is still to be trained, which the forecast starts from; "
            "`llm2comp train recipe FILE --check` estimates that stage"
        )
    return prepared.forecast(backbone, probe=True)


class _Prepared:
    """A plan, what is chosen from it, and what measures it."""

    def __init__(self, ablation: str, output: Path, results: Path, data: Path, choice: Choice, analysis: bool) -> None:
        self._output = output
        self.plan, self.recipe = read_plan(ablation, data=data, pairs=output / "pairs")
        self.chosen = choice.lineages(self.plan, self.recipe.model.memory_tokens)
        self.baselines = choice.baselines(self.plan)
        check_sources(self.recipe, made={str(output / "pairs"), str(output / "long_pairs")})
        assert self.recipe.compression is not None
        backbone = self.recipe.model.backbone or output / "pretrain" / "backbone"
        self.measurer = Measurer(
            results,
            read_suite(self.plan.suite).read_own(data / "eval"),
            _described(self.plan, self.recipe),
            _heldout(self.recipe) if analysis else [],
            end_only=self.plan.end_only,
            final_only=self.plan.final_only,
            reader=Reader(backbone, self.recipe.compression.max_tokens),
            max_length=self.recipe.model.max_length,
        )
        self._rates: Rates | None = None

    def forecast(self, backbone: str | Path, *, probe: bool) -> Forecast:
        """Of everything that is chosen, as the folders are now; `probe` as in `Rates`."""
        measurer = self.measurer
        rates = self._rates or Rates(
            self.recipe, backbone, self._output, measurer.results, measurer.tasks, measurer.texts, probe
        )
        steps = list(steps_of(self.plan, self.recipe, self.chosen, self.baselines, measurer, rates))
        rates.refresh()
        self._rates = rates
        return Forecast(steps, self.recipe.derive is not None and not (self._output / "pairs").is_dir())


def _described(plan: AblationPlan, recipe: Recipe) -> dict[str, Any]:
    """Name of the ablation, samples of each stage, and what the whole plan has, for the result files."""
    stages = {"pretext": recipe.compression, "unsupervised": recipe.unsupervised, "supervised": recipe.supervised}
    return {
        "ablation": plan.name,
        "samples": {name: stage.steps * stage.batch_size for name, stage in stages.items() if stage is not None},
        "plan": [one.name for one in lineages(plan, recipe.model.memory_tokens)],
    }


def _heldout(recipe: Recipe) -> list[str]:
    """Texts that no stage was trained on; their embeddings are described."""
    assert recipe.compression is not None
    if recipe.compression.heldout is None:
        return []
    texts = passages(read_corpus(recipe.compression.heldout), recipe.compression.min_characters)
    return [text for _, text in islice(texts, _HELDOUT_TEXTS)]
