"""An audit as text, as JSON, and as files of a folder."""

import csv
import io
import json
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from llm2comp.atomic import write_output
from llm2comp.errors import LLM2CompError
from llm2comp_indexes.audit.histogram import Bin, format_bins, make_bins, plot_bins
from llm2comp_indexes.audit.run import Audit, AuditedRow
from llm2comp_indexes.format.commits import made_folder

__all__ = ["audit_json", "format_audit", "output_folder", "write_audit"]

_SHOWN = 60
_FILES = ("audit.json", "fidelity.tsv", "histogram.png")


def format_audit(audit: Audit, *, lowest: int, printable: Callable[[str], str]) -> str:
    """Histogram, summary, the lowest rows and the correlations.

    Args:
        audit: The audit.
        lowest: Number of rows shown.
        printable: Makes ids and texts safe for a terminal.
    """
    parts = [format_bins(make_bins(audit.shares))] if audit.shares else []
    parts.append(_format_summary(audit))
    if lowest and (rows := audit.lowest(lowest)):
        lines = (
            f"{row.share:7.3f}  {row.fidelity.tokens:>4}  {printable(row.id)}  {_beginning(row, printable)}"
            for row in rows
        )
        parts.append("\n".join(["lowest:  share, tokens, id, text", *lines]))
    if audit.shares:
        parts.append(_format_correlations(audit))
    return "\n\n".join(parts)


def _beginning(row: AuditedRow, printable: Callable[[str], str]) -> str:
    text = printable(row.text[: 4 * _SHOWN])
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def _format_summary(audit: Audit) -> str:
    summary = audit.summary
    lines = [
        f"{audit.settings.measure} of {summary.texts:,} of {audit.rows:,} rows, {summary.tokens:.0f} tokens on average",
        f"loss in nats per token: {summary.nothing:.3f} after nothing, {summary.memory:.3f} after the memory, "
        f"{summary.text:.3f} after the text",
    ]
    if summary.share and summary.quartiles:
        share, (first, median, third) = summary.share, summary.quartiles
        lines.append(f"share kept: {share.value:.3f} ({share.low:.3f} to {share.high:.3f}), over all rows together")
        lines.append(f"of single rows: median {median:.3f}, half of them from {first:.3f} to {third:.3f}")
    if summary.unhelped:
        lines.append(f"{summary.unhelped:,} rows have no share: their text does not help the reader")
    if summary.cut:
        lines.append(f"{summary.cut:,} rows are longer than what is read at once: only their beginnings were read")
    if audit.too_short:
        lines.append(f"{audit.too_short:,} rows are too short and were left out")
    if not audit.own_model:
        lines.append("the memories are of another model than that of the index")
    return "\n".join(lines)


def _format_correlations(audit: Audit) -> str:
    chance = audit.correlations[0].chance
    lines = [
        f"{'-' if one.value is None else f'{one.value:+.2f}':>7}  {one.trait}"
        + (" (within chance)" if one.value is not None and abs(one.value) < chance else "")
        for one in audit.correlations
    ]
    return "\n".join([f"rank correlation of the share with (chance: up to {chance:.2f} either way)", *lines])


def audit_json(audit: Audit, *, lowest: int) -> dict[str, Any]:
    """The audit as JSON values, with the lowest rows."""
    summary = asdict(audit.summary)
    share = audit.summary.share
    return {
        "settings": asdict(audit.settings),
        "own_model": audit.own_model,
        "rows": audit.rows,
        "too_short": audit.too_short,
        "summary": summary | {"share": share and share._asdict()},
        "bins": [_bin_json(one) for one in make_bins(audit.shares)] if audit.shares else [],
        "lowest": [
            {"id": row.id, "share": row.share, "tokens": row.fidelity.tokens, "text": row.text[: 4 * _SHOWN]}
            for row in audit.lowest(lowest)
        ],
        "correlations": [one._asdict() for one in audit.correlations],
    }


def _bin_json(one: Bin) -> dict[str, float | None]:
    """The bin, null for an end that is infinite."""
    return {name: value if math.isfinite(value) else None for name, value in one._asdict().items()}


@contextmanager
def output_folder(folder: Path) -> Iterator[None]:
    """The folder of the files, made before the audit, which takes long; gone again if nothing was written.

    Raises:
        LLM2CompError: It cannot be made, or no file can be written there.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(made_folder(folder))
            with TemporaryFile(dir=folder):
                pass
        except OSError as error:
            what = "written to" if folder.is_dir() else "created"
            raise LLM2CompError(f"{folder}: cannot be {what} ({error.strerror}); give another with -o") from error
        yield


def write_audit(audit: Audit, folder: Path, *, lowest: int) -> list[Path]:
    """Writes `audit.json`, `fidelity.tsv` (a line for each row) and `histogram.png`; returns their paths."""
    numbers, lines, picture = (folder / name for name in _FILES)
    content = audit_json(audit, lowest=lowest)
    write_output(numbers, [json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False), "\n"])
    write_output(lines, [_tab_separated(audit)])
    if not audit.shares or audit.summary.quartiles is None:
        picture.unlink(missing_ok=True)  # of an earlier audit
        return [numbers, lines]
    title = f"{audit.settings.measure.capitalize()} of {audit.summary.texts:,} rows"
    plot_bins(make_bins(audit.shares), picture, title=title, median=audit.summary.quartiles[1])
    return [numbers, lines, picture]


def _tab_separated(audit: Audit) -> str:
    """Lines of id, share (empty if there is none), tokens, the three losses, and whether the text was cut."""
    file = io.StringIO()
    writer = csv.writer(file, delimiter="\t", lineterminator="\n")
    writer.writerow(["id", "share", "tokens", "nothing", "memory", "text", "cut"])
    for row in audit.audited:
        one = row.fidelity
        share = "" if row.share is None else f"{row.share:.6f}"
        losses = [f"{value:.6f}" for value in (one.nothing, one.memory, one.text)]
        writer.writerow([row.id, share, one.tokens, *losses, int(one.cut)])
    return file.getvalue()
