"""The tables of an ablation, in Markdown."""

from collections.abc import Callable, Iterable, Sequence

from llm2comp_benchmarks.ablation.summary import (
    PRETEXTS,
    STAGES,
    Ablation,
    Mean,
    Run,
    grouped,
    mean_over_seeds,
    pretext_place,
)
from llm2comp_benchmarks.results.read import hardware_of
from llm2comp_benchmarks.results.tables import markdown_table

__all__ = [
    "cost_words",
    "kind_score",
    "memory_runs",
    "memory_runs_of_all_seeds",
    "memory_table",
    "pooling_table",
    "pretext_name",
    "pretexts_table",
    "samples_by_count",
    "samples_table",
]

_ABSENT = "–"
_FIGURES = {
    "participation_ratio": "participation ratio",
    "entropy_rank": "entropy rank",
    "memory_similarity_mean": "memory-token cosine",
    "context_share": "context kept",
}
_TWO_DIGITS = ("memory_similarity_mean", "context_share")


def pretext_name(pretext: str) -> str:
    """Name of a pretext in tables."""
    return PRETEXTS.get(pretext, pretext)


def pretexts_table(ablation: Ablation) -> str:
    """Every pretext after every stage: scores by task, their average, and figures of the embeddings.

    The best score of each stage is in bold.
    """
    figures = {
        name: title
        for name, title in _FIGURES.items()
        if any(run.analysis.get(name) is not None for run in ablation.runs)
    }
    rows = [["pretext", "seeds", *_headers(ablation.kinds), "average", *figures.values()]]
    for stage, title in STAGES.items():
        by_pretext = grouped(ablation.finished(stage), lambda run: run.pretext)
        if by_pretext:
            rows.append([f"*{title}*", *[""] * (len(rows[0]) - 1)])
            rows += _stage_rows(
                {name: by_pretext[name] for name in sorted(by_pretext, key=pretext_place)}, ablation, list(figures)
            )
    return markdown_table(rows)


def _headers(kinds: dict[str, str]) -> list[str]:
    return [f"{kind}<br>{task}" for task, kind in kinds.items()]


def _stage_rows(by_pretext: dict[str, list[Run]], ablation: Ablation, figures: Sequence[str]) -> list[list[str]]:
    columns = [
        _bold_best({name: mean_over_seeds([score(run) for run in runs]) for name, runs in by_pretext.items()})
        for score in _scores(ablation)
    ]
    rows = []
    for name, runs in by_pretext.items():
        described = [_figure(runs, figure) for figure in figures]
        rows.append([pretext_name(name), str(len(runs)), *(column[name] for column in columns), *described])
    return rows


def _scores(ablation: Ablation) -> list[Callable[[Run], float]]:
    return [
        *((lambda run, task=task: float(run.scores[task])) for task in ablation.kinds),
        lambda run: run.average(ablation.kinds),
    ]


def _bold_best(means: dict[str, Mean]) -> dict[str, str]:
    best = max(round(mean.value, 3) for mean in means.values())
    return {
        name: f"**{mean.formatted()}**" if len(means) > 1 and round(mean.value, 3) == best else mean.formatted()
        for name, mean in means.items()
    }


def _figure(runs: Sequence[Run], figure: str) -> str:
    values = [run.analysis[figure] for run in runs if run.analysis.get(figure) is not None]
    return mean_over_seeds(values).formatted(2 if figure in _TWO_DIGITS else 1) if values else _ABSENT


def samples_by_count(ablation: Ablation, pretext: str) -> dict[int, list[Run]]:
    """Models of a pretext by supervised samples; 0: after stage 2."""
    runs = [*ablation.pick(stage="unsupervised", pretext=pretext), *ablation.pick(stage="supervised", pretext=pretext)]
    return dict(sorted(grouped(runs, lambda run: run.samples).items()))


def samples_table(ablation: Ablation) -> str:
    """The average over the tasks of the curve by pretext and supervised samples, the best of each column in bold."""
    by_pretext = {name: samples_by_count(ablation, name) for name in ablation.pretexts}
    counts = sorted({count for runs in by_pretext.values() for count in runs})
    columns = {
        count: _bold_best(
            {name: _average(runs[count], ablation.curve) for name, runs in by_pretext.items() if count in runs}
        )
        for count in counts
    }
    rows = [[f"average of {', '.join(ablation.curve)}", *(f"{count:,} samples" for count in counts)]]
    rows += [
        [pretext_name(name), *(columns[count].get(name, _ABSENT) for count in counts)]
        for name, runs in by_pretext.items()
        if runs
    ]
    return markdown_table(rows)


def _average(runs: Sequence[Run], tasks: Iterable[str]) -> Mean:
    return mean_over_seeds([run.average(tasks) for run in runs])


def memory_table(ablation: Ablation) -> str:
    """Scores of CTKD by number of memory tokens k and kind of task, after every stage; "" with one k.

    Means are over the seeds that every k was run with. Where a k has more seeds, a sentence below the table gives the
    range of its average over them.
    """
    kinds = list(dict.fromkeys(ablation.kinds.values()))
    rows = [["memory tokens", "seeds", *kinds, "average"]]
    for stage, title in STAGES.items():
        by_k = memory_runs(ablation, stage)
        if len(by_k) > 1:
            rows.append([f"*{title}*", *[""] * (len(rows[0]) - 1)])
            columns = [
                _bold_best(
                    {
                        str(k): mean_over_seeds([kind_score(run, ablation, kind) for run in runs])
                        for k, runs in by_k.items()
                    }
                )
                for kind in kinds
            ]
            columns.append(_bold_best({str(k): _average(runs, ablation.kinds) for k, runs in by_k.items()}))
            rows += [[str(k), str(len(runs)), *(column[str(k)] for column in columns)] for k, runs in by_k.items()]
    return "\n\n".join(filter(None, [markdown_table(rows), _spread_words(ablation)])) if rows[1:] else ""


def _spread_words(ablation: Ablation) -> str:
    """The range of the average over seeds, of each k with more seeds than the table compares; "" without such a k."""
    ranges: dict[tuple[int, int], list[str]] = {}
    for stage, title in STAGES.items():
        compared = memory_runs(ablation, stage)
        for k, runs in memory_runs_of_all_seeds(ablation, stage).items():
            if len(compared) > 1 and len(runs) > len(compared[k]):
                mean = _average(runs, ablation.kinds)
                ranges.setdefault((k, mean.seeds), []).append(f"{mean.lowest:.3f} to {mean.highest:.3f} ({title})")
    return "\n".join(
        f"The {seeds} seeds of k = {k} have averages of {', '.join(spreads)}." for (k, seeds), spreads in ranges.items()
    )


def memory_runs_of_all_seeds(ablation: Ablation, stage: str) -> dict[int, list[Run]]:
    """Models of CTKD at the end of a stage, by number of memory tokens."""
    counts = sorted({run.memory_tokens for run in ablation.runs if run.memory_tokens})
    return {k: runs for k in counts if (runs := ablation.finished(stage, pretext="distillation", memory_tokens=k))}


def memory_runs(ablation: Ablation, stage: str) -> dict[int, list[Run]]:
    """As `memory_runs_of_all_seeds`, with the seeds that all numbers of memory tokens share."""
    by_k = memory_runs_of_all_seeds(ablation, stage)
    shared = set.intersection(*({run.seed for run in runs} for runs in by_k.values())) if by_k else set()
    return {k: [run for run in runs if run.seed in shared] for k, runs in by_k.items()} if shared else {}


def kind_score(run: Run, ablation: Ablation, kind: str) -> float:
    """Mean of a run over the tasks of a kind."""
    return run.average(task for task, of in ablation.kinds.items() if of == kind)


def pooling_table(ablation: Ablation) -> str:
    """The finished models of CTKD pooled by the mean, by clustering before the mean, and the difference.

    For other numbers of memory tokens the difference alone. "" where no model was clustered.
    """
    pairs = _pooled_both_ways(ablation, ablation.k)
    if not pairs:
        return ""
    rows = [["pooling", "seeds", *_headers(ablation.kinds), "average"]]
    for place, title in enumerate(("mean", "clustered, merged, then the mean")):
        rows.append(
            [
                title,
                str(len(pairs)),
                *(mean_over_seeds([score(pair[place]) for pair in pairs]).formatted() for score in _scores(ablation)),
            ]
        )
    rows.append(_difference_row("difference", pairs, ablation))
    for k in sorted({run.memory_tokens for run in ablation.runs if run.pooling == "cluster"} - {ablation.k}):
        if others := _pooled_both_ways(ablation, k):
            rows.append(_difference_row(f"difference, k = {k}", others, ablation))
    return markdown_table(rows)


def _pooled_both_ways(ablation: Ablation, k: int) -> list[tuple[Run, Run]]:
    """The finished model of CTKD pooled by the mean and clustered, for each seed that has both."""
    attributes = {"pretext": "distillation", "memory_tokens": k}
    mean, cluster = (
        {run.seed: run for run in ablation.finished("supervised", pooling=pooling, **attributes)}
        for pooling in ("mean", "cluster")
    )
    return [(mean[seed], cluster[seed]) for seed in sorted(mean.keys() & cluster.keys())]


def _difference_row(title: str, pairs: Sequence[tuple[Run, Run]], ablation: Ablation) -> list[str]:
    differences = [
        mean_over_seeds([score(cluster) - score(mean) for mean, cluster in pairs]) for score in _scores(ablation)
    ]
    return [title, str(len(pairs)), *map(_signed, differences)]


def _signed(mean: Mean) -> str:
    return ("+" if mean.value >= 0 else "") + mean.formatted(4)


def cost_words(ablation: Ablation) -> str:
    """A sentence on the number of models, the hours of measuring, the hardware, and the samples of each stage."""
    hardware = "; ".join(dict.fromkeys(hardware_of(file) for file in ablation.files))
    hours = sum(sum((file.beside["seconds"] or {}).values()) for file in ablation.files) / 3600
    words = f"{len(ablation.runs)} models, measured in {hours:.1f} hours, training not counted, on {hardware}."
    budgets = ablation.files[0].settings["ablation"].get("samples")
    if isinstance(budgets, dict):
        words += f" Samples of each stage: {', '.join(f'{stage} {count:,}' for stage, count in budgets.items())}."
    return words
