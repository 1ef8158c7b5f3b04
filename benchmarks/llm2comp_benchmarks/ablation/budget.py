"""What an ablation has cost and how far it is, as tables and words."""

from llm2comp_benchmarks.ablation.summary import STAGES, Ablation, Run, grouped, mean_over_seeds
from llm2comp_benchmarks.ablation.tables import pretext_name
from llm2comp_benchmarks.results.tables import markdown_table

__all__ = ["progress_words", "seconds_table"]

_ABSENT = "–"
_TRAINED = ("pretext", "unsupervised", "supervised")


def seconds_table(ablation: Ablation) -> str:
    """Training time of every pretext and stage beside the equal budget of texts and updates; "" where none is known.

    Times are medians of an update times their number, so that pauses are not in them; means over seeds.
    """
    samples = ablation.settings.get("samples") or {}
    rows = [
        ["pretext", "seeds", *(f"{STAGES[stage]}, s/update" for stage in _TRAINED), *_hours_titles(samples), "hours"]
    ]
    for pretext in ablation.pretexts:
        by_stage = {stage: _timed(ablation, stage, pretext) for stage in _TRAINED}
        if any(by_stage.values()):
            hours = [_mean(runs, "seconds") / 3600 for runs in by_stage.values() if runs]
            rows.append(
                [
                    pretext_name(pretext),
                    str(max(len(runs) for runs in by_stage.values())),
                    *(f"{_mean(runs, 'seconds_per_update'):.3g}" if runs else _ABSENT for runs in by_stage.values()),
                    *(f"{_mean(runs, 'seconds') / 3600:.2f}" if runs else _ABSENT for runs in by_stage.values()),
                    f"{sum(hours):.2f}" + ("" if by_stage["supervised"] else " so far"),
                ]
            )
    return markdown_table(rows) if rows[1:] else ""


def _hours_titles(samples: dict[str, int]) -> list[str]:
    """Titles of the columns of hours, with the samples of each stage where they are known."""
    return [
        f"{STAGES[stage]}, hours" + (f"<br>{samples[stage]:,} texts" if stage in samples else "") for stage in _TRAINED
    ]


def _timed(ablation: Ablation, stage: str, pretext: str) -> list[Run]:
    return [run for run in ablation.finished(stage, pretext=pretext) if run.training]


def _mean(runs: list[Run], figure: str) -> float:
    return mean_over_seeds([run.training[figure] for run in runs]).value


def progress_words(ablation: Ablation) -> str:
    """How many runs of the plan are finished, and which are begun or not run; "" where the plan is not known."""
    planned = ablation.settings.get("plan")
    if not isinstance(planned, list):
        return ""
    by_name = grouped(ablation.runs, lambda run: run.lineage)
    finished = {
        run.lineage for run in ablation.runs if run.stage == "supervised" and run.samples == ablation.most_samples
    }
    begun = [name for name in planned if name in by_name and name not in finished]
    absent = [name for name in planned if name not in by_name]
    done = sum(name in finished for name in planned)
    lines = [f"Finished: {done} of {len(planned)} runs of the plan."]
    if begun:
        shown = (f"{_words(name)} ({', '.join(_reached(by_name[name], ablation.most_samples))})" for name in begun)
        lines.append(f"Begun, so partial: {'; '.join(shown)}.")
    if absent:
        lines.append(f"Not run: {'; '.join(map(_words, absent))}.")
    if ablation.unfinished:
        lines.append(f"Being measured, so left out: {', '.join(ablation.unfinished)}.")
    return "\n".join(lines)


def _reached(runs: list[Run], most: int) -> list[str]:
    """Stages that a run has been measured after; of stage 3 how far it is, in supervised samples."""
    samples = max(run.samples for run in runs)
    partly = {"supervised": f" ({samples:,} of {most:,} samples)"} if samples < most else {}
    return [title + partly.get(stage, "") for stage, title in STAGES.items() if any(run.stage == stage for run in runs)]


def _words(lineage: str) -> str:
    """A run's name as people read it: `distillation-k8-seed0` is CTKD, k = 8, seed 0."""
    pretext, k, seed = lineage.rsplit("-", 2)
    tokens = k.removeprefix("k")
    return f"{pretext_name(pretext)}{f', k = {tokens}' if tokens != '0' else ''}, seed {seed.removeprefix('seed')}"
