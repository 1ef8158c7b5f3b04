"""How long an ablation takes: every run of its plan, what is done, and the sums of its parts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llm2comp_benchmarks.ablation.lineages import Lineage, Stage, mark_of, stage_settings, stages_of, untrained
from llm2comp_benchmarks.ablation.measure import Measurer
from llm2comp_benchmarks.ablation.pace import read_pace
from llm2comp_benchmarks.ablation.plan import PARTS, AblationPlan, part_of
from llm2comp_benchmarks.ablation.rates import PROBED, UNKNOWN, Rate, Rates
from llm2comp_benchmarks.ablation.summary import PRETEXTS, STAGES
from llm2comp_benchmarks.results.tables import aligned_table

__all__ = ["Forecast", "Step", "duration", "steps_of"]


@dataclass(frozen=True)
class Step:
    """A stage to be trained, or a model to be measured.

    Attributes:
        part: Key of the part of the plan.
        lineage: The models.
        stage: Name of the stage.
        doing: "train" or "measure".
        total: Updates, or tasks with the description of the embeddings.
        left: Those that are still to be done.
        rate: Seconds of an update, or of all that is measured, and where they are from.
        seconds: Of the whole step.
        seconds_left: Of what is left.
    """

    part: str
    lineage: Lineage
    stage: str
    doing: str
    total: int
    left: int
    rate: Rate
    seconds: float
    seconds_left: float


@dataclass(frozen=True)
class Forecast:
    """All steps of the runs that were chosen from a plan.

    Attributes:
        steps: In the order in which they are done.
        underived: Whether the pairs of stage 3 are still to be derived, so that their lengths are the longest allowed.
    """

    steps: list[Step]
    underived: bool = False

    @property
    def seconds_left(self) -> float:
        """Of all steps."""
        return sum(step.seconds_left for step in self.steps)

    @property
    def steps_left(self) -> int:
        """Number of steps that are not finished."""
        return sum(bool(step.left) for step in self.steps)

    def line(self) -> str:
        """What is left, in a few words; steps of which none of the kind has run are counted, not timed."""
        untimed = sum(bool(step.left) and step.rate.source == UNKNOWN for step in self.steps)
        left = f"{self.steps_left} of {len(self.steps)} steps left"
        if not untimed:
            return f"{left}, about {duration(self.seconds_left)}"
        steps = f"{untimed} step{'s' if untimed > 1 else ''} of a kind that has not run yet"
        if untimed == self.steps_left:
            return f"{left}, all of a kind that has not run yet, so not timed"
        return f"{left}, about {duration(self.seconds_left)} and {steps}"

    def table(self) -> str:
        """One line for each stage of each run, and the sums by part."""
        rows = [["run", "stage", "updates", "left", "s/update", "training left", "measuring left", "state"]]
        marks = set()
        for (lineage, stage), steps in _grouped(self.steps).items():
            training = [step for step in steps if step.doing == "train"]
            measuring = [step for step in steps if step.doing == "measure"]
            marks |= {step.rate.source for step in steps if step.seconds_left}
            rows.append(
                [
                    _run_name(lineage),
                    STAGES[stage],
                    *(_training_cells(training[0]) if training else ["–"] * 4),
                    duration(sum(step.seconds_left for step in measuring)),
                    _state(steps),
                ]
            )
        return "\n\n".join(filter(None, [aligned_table(rows, left=(0, 1, 7)), self._sums(), self._notes(marks)]))

    def _sums(self) -> str:
        rows = [["part of the plan", "left", "of", "training left", "measuring left"]]
        for part, title in [*PARTS.items(), ("", "all")]:
            if steps := [step for step in self.steps if not part or step.part == part]:
                by_doing = [sum(step.seconds_left for step in steps if step.doing == doing) for doing in _DOING]
                sums = [sum(by_doing), sum(step.seconds for step in steps), *by_doing]
                rows.append([title, *map(duration, sums)])
        return aligned_table(rows)

    def _notes(self, marks: set[str]) -> str:
        notes = [
            "Times are of this machine as busy as it is now; loading, checkpoints and deriving pairs are not in them."
        ]
        if PROBED in marks:
            notes.append(
                "* from a few small steps run for this forecast; other times are medians of what has run here."
            )
        if self.underived:
            notes.append(
                "The pairs are still to be derived: + UCL + SCL takes at most this, with the longest texts allowed."
            )
        return "\n".join(notes)


_DOING = ("train", "measure")


def steps_of(
    plan: AblationPlan,
    recipe: Any,
    chosen: Sequence[Lineage],
    baselines: Sequence[str],
    measurer: Measurer,
    rates: Rates,
) -> Iterator[Step]:
    """Every step of some lineages and baselines, with what is left of it.

    Args:
        plan: The plan.
        recipe: Its recipe.
        chosen: The lineages.
        baselines: Poolings of the language model without training.
        measurer: Knows what has been measured.
        rates: Times of updates and tasks.
    """
    k = recipe.model.memory_tokens
    for lineage in chosen:
        folder = rates.output / lineage.name
        settled = measurer.is_settled(lineage, models_of(plan, recipe, lineage, folder), folder)
        trained = ""
        for stage in stages_of(lineage, recipe, folder, plan.curve):
            part = part_of(plan, lineage, k)
            if stage.name != trained:
                yield _training(part, lineage, stage.name, recipe, folder, rates, settled)
                trained = stage.name
            for measured in (stage, *clustered(plan, lineage, stage)):
                yield _measuring(part, lineage, measured, measurer, rates)
    for pooling in baselines:
        lineage, stage = untrained(pooling, rates.backbone)
        yield _measuring("objectives", lineage, stage, measurer, rates)


def clustered(plan: AblationPlan, lineage: Lineage, stage: Stage) -> list[Stage]:
    """The finished model of distillation with its memory tokens clustered before the mean; empty for other models."""
    if plan.cluster_threshold is None or lineage.pretext != "distillation":
        return []
    if stage.name != "supervised" or not stage.finished:
        return []
    return [replace(stage, pooling={"mode": "cluster", "threshold": plan.cluster_threshold})]


def models_of(plan: AblationPlan, recipe: Any, lineage: Lineage, folder: Path) -> list[Stage]:
    """Every model of a lineage that is measured."""
    stages = stages_of(lineage, recipe, folder, plan.curve)
    return [model for stage in stages for model in (stage, *clustered(plan, lineage, stage))]


def _training(part: str, lineage: Lineage, stage: str, recipe: Any, folder: Path, rates: Rates, settled: bool) -> Step:
    total = stage_settings(recipe, lineage)[stage].steps
    left = 0 if settled else total - read_pace(folder / stage, total, mark_of(lineage)).done
    rate = rates.update(lineage, stage)
    whole, rest = (updates * rate.seconds + rates.heldout(lineage, stage, updates) for updates in (total, left))
    return Step(part, lineage, stage, "train", total, left, rate, whole, rest)


def _measuring(part: str, lineage: Lineage, stage: Stage, measurer: Measurer, rates: Rates) -> Step:
    tasks = measurer.tasks_of(stage)
    missing = {task.name for task in measurer.missing(lineage, stage)}
    pooling = lineage.pretext if stage.name == "untrained" else ""
    times = {task.name: rates.task(task, pooling) for task in tasks}
    describes = bool(measurer.texts) and stage.finished and stage.pooling is None
    analysis = rates.analysis() if describes else Rate(0.0, "")
    lacks = measurer.lacks_analysis(lineage, stage)
    untimed = any(times[name].source == UNKNOWN for name in missing) or (lacks and analysis.source == UNKNOWN)
    whole = sum(rate.seconds for rate in times.values()) + analysis.seconds
    rest = sum(rate.seconds for name, rate in times.items() if name in missing) + analysis.seconds * lacks
    source = PROBED if any(times[name].source == PROBED for name in missing) else next(iter(times.values())).source
    source, rest = (UNKNOWN, 0.0) if untimed else (source, rest)
    return Step(
        part,
        lineage,
        stage.name,
        "measure",
        len(tasks) + describes,
        len(missing) + lacks,
        Rate(whole, source),
        whole,
        rest,
    )


def _grouped(steps: Sequence[Step]) -> dict[tuple[Lineage, str], list[Step]]:
    groups: dict[tuple[Lineage, str], list[Step]] = {}
    for step in steps:
        groups.setdefault((step.lineage, step.stage), []).append(step)
    return groups


def _training_cells(step: Step) -> list[str]:
    mark = "*" if step.rate.source == PROBED else ""
    return [f"{step.total:,}", f"{step.left:,}", f"{step.rate.seconds:.3g}{mark}", duration(step.seconds_left)]


def _state(steps: Sequence[Step]) -> str:
    if not any(step.left for step in steps):
        return "done"
    return "begun" if any(step.left < step.total for step in steps) else "to do"


def _run_name(lineage: Lineage) -> str:
    name = PRETEXTS.get(lineage.pretext, lineage.pretext)
    k = f", k = {lineage.memory_tokens}" if lineage.memory_tokens else ""
    return f"{name}{k}, seed {lineage.seed}"


def duration(seconds: float) -> str:
    """Hours and minutes, such as `3:05 h`; below an hour minutes, below a minute seconds."""
    if seconds >= 3600:
        hours, minutes = divmod(round(seconds / 60), 60)
        return f"{hours}:{minutes:02} h"
    return f"{seconds / 60:.0f} min" if seconds >= 60 else f"{seconds:.0f} s"
