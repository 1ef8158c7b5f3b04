"""Comparisons of runs as text for a terminal."""

from llm2comp_benchmarks.compare.compare import ALPHA, Comparison, Comparisons
from llm2comp_benchmarks.compare.significance import LEVEL, Interval
from llm2comp_benchmarks.results.read import ResultFile
from llm2comp_benchmarks.results.tables import aligned_table

__all__ = ["format_comparisons", "format_p"]


def format_comparisons(report: Comparisons) -> str:
    """The files by letter, a table for every pair with intervals in a second line, and notes on the tests."""
    parts = ["\n".join(f"{letter}  {_system(file)}" for letter, file in report.files.items())]
    for letter in list(report.files)[1:]:
        if rows := [one for one in report.comparisons if one.letters[1] == letter]:
            parts.append(_table(letter, rows))
    return "\n\n".join([*parts, _footnote(report)])


def _system(file: ResultFile) -> str:
    model = file.settings.get("model") or file.settings.get("system") or file.settings.get("run")
    return f"{file.path} ({model})" if isinstance(model, str) else str(file.path)


def _table(letter: str, rows: list[Comparison]) -> str:
    lines = [["task", "metric", "n", "A", letter, f"{letter} - A", "p", ""]]
    for one in rows:
        n, p = str(one.count[0]) if one.count else "-", "-" if one.corrected_p is None else format_p(one.corrected_p)
        difference = f"{one.second.value - one.first.value:+.3f}"
        lines.append(
            [one.task, one.metric, n, f"{one.first.value:.3f}", f"{one.second.value:.3f}", difference, p, one.words]
        )
        ends = [
            _ends(one.first.interval),
            _ends(one.second.interval),
            _ends(one.difference.interval if one.difference else None, "+.3f"),
        ]
        if any(ends):
            lines.append(["", "", "", *ends, "", ""])
    return aligned_table(lines, left=(0, 1, 7))


def _ends(interval: Interval | None, form: str = ".3f") -> str:
    return f"[{interval.low:{form}}, {interval.high:{form}}]" if interval else ""


def format_p(p: float) -> str:
    """A p-value with three digits, or `<0.001`."""
    return f"{p:.3f}" if p >= 0.001 else "<0.001"


def _footnote(report: Comparisons) -> str:
    tested = [one for one in report.comparisons if one.difference]
    without = len(report.comparisons) - len(tested)
    lines = []
    if tested:
        lines += [
            f"In brackets: {LEVEL:.0%} bootstrap intervals over the n samples ({report.resamples:,} resamples, seed "
            f"{report.seed}).",
            f"p: two-sided, paired ({_tests(tested)}), after Holm's correction over {_counted(len(tested))}.",
            f"Better or worse: p < {ALPHA}. No clear difference is not the same as equal.",
        ]
    if without:
        lines.append(
            f"No interval and no test can be given for {_counted(without)}: the file has no samples. Evaluate again "
            "to have them."
        )
        if any(_of_mteb(report, one) for one in report.comparisons if not one.difference):
            lines.append(
                "Of mteb's tasks those with several subsets or splits and those of rarer kinds have none; for the "
                "others, evaluate with --overwrite."
            )
    return "\n".join(lines)


def _of_mteb(report: Comparisons, one: Comparison) -> bool:
    return report.files["A"].tasks[one.task].details.get("benchmark") == "mteb"


def _tests(tested: list[Comparison]) -> str:
    words = {
        "randomisation": "randomisation test of means",
        "bootstrap": "bootstrap of correlations and average precision",
    }
    used = {one.difference.test for one in tested if one.difference}
    return ", ".join(text for test, text in words.items() if test in used)


def _counted(comparisons: int) -> str:
    return f"{comparisons} comparison{'s' if comparisons != 1 else ''}"
