"""An analysis as text: a table with one column per model, and the reader's continuations."""

import textwrap
from collections.abc import Callable, Sequence

from llm2comp.analysis.description import mean_off_diagonal
from llm2comp.analysis.reading import BEGINNINGS, Reading, Sample, Share
from llm2comp.analysis.report import Analysis, ModelAnalysis

__all__ = ["format_analysis", "format_samples"]

_NAME_CHARACTERS = 40
_CONTEXT_CHARACTERS = 160
_Row = tuple[str, Callable[[ModelAnalysis], str]]


def format_analysis(analysis: Analysis) -> str:
    """The numbers of all models, one row each; `-` for a number that a model does not have."""
    rows = [["", *(_short(model.name) for model in analysis.models)]]
    for name, format_cell in (*_VECTOR_ROWS, *_MEMORY_ROWS, *_READING_ROWS):
        cells = [format_cell(model) for model in analysis.models]
        if set(cells) != {"-"}:
            rows.append([name, *cells])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    )


def format_samples(samples: Sequence[Sample], printable: Callable[[str], str]) -> str:
    """The reader's continuations after each beginning, one block per text.

    `printable` makes a text safe for a terminal.
    """
    blocks = []
    for sample in samples:
        context = printable(sample.context)
        lines = [
            ("text", context if len(context) <= _CONTEXT_CHARACTERS else "…" + context[-_CONTEXT_CHARACTERS:]),
            ("goes on with", printable(sample.continuation)),
        ]
        lines += [(f"from {name}", printable(sample.written[name])) for name in reversed(BEGINNINGS)]
        blocks.append("\n".join(_indented(name, text) for name, text in lines))
    return "\n\n".join(blocks)


def _indented(name: str, text: str) -> str:
    return textwrap.fill(text or "(nothing)", 110, initial_indent=f"  {name:<18}", subsequent_indent=" " * 20)


def _short(name: str) -> str:
    return name if len(name) <= _NAME_CHARACTERS else "…" + name[1 - _NAME_CHARACTERS :]


def _number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _figure(name: str, digits: int = 3) -> Callable[[ModelAnalysis], str]:
    return lambda model: _number(getattr(model.description.figures, name), digits)


def _tokens(model: ModelAnalysis) -> str:
    return "-" if model.description.similarity is None else str(len(model.description.similarity))


def _similarity(model: ModelAnalysis) -> str:
    return "-" if model.description.similarity is None else _number(mean_off_diagonal(model.description.similarity))


def _reading(format_cell: Callable[[Reading], str]) -> Callable[[ModelAnalysis], str]:
    return lambda model: "-" if model.reading is None else format_cell(model.reading)


def _loss(name: str, beginning: str) -> _Row:
    return f"{name.upper()} after {beginning}", _reading(lambda reading: _number(getattr(reading, name)[beginning], 4))


def _kept(share: Share | None) -> str:
    return "undefined" if share is None else f"{share.value:.0%} ({share.low:.0%} to {share.high:.0%})"


_VECTOR_ROWS: tuple[_Row, ...] = (
    ("dimension", _figure("dimension", 0)),
    ("participation ratio", _figure("participation_ratio", 1)),
    ("entropy rank", _figure("entropy_rank", 1)),
    ("participation ratio, mean left in", _figure("participation_ratio_uncentred", 1)),
    ("entropy rank, mean left in", _figure("entropy_rank_uncentred", 1)),
    ("uniformity (lower: more even)", _figure("uniformity")),
    ("anisotropy (mean cosine)", _figure("mean_cosine")),
    ("alignment (lower: closer)", lambda model: _number(model.description.alignment)),
)
_MEMORY_ROWS: tuple[_Row, ...] = (("memory tokens", _tokens), ("mean cosine between memory tokens", _similarity))
_READING_ROWS: tuple[_Row, ...] = (
    ("texts read (tokens scored)", _reading(lambda reading: f"{reading.texts} ({reading.tokens:,})")),
    *(_loss("nll", beginning) for beginning in BEGINNINGS),
    ("share of the context's worth kept", _reading(lambda reading: _kept(reading.nll_share))),
    *(_loss("ctkd", beginning) for beginning in BEGINNINGS[:-1]),
    ("share of the divergence removed", _reading(lambda reading: _kept(reading.ctkd_share))),
)
