"""`llm2comp index tune`: the effort of searches, set by questions of the user."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llm2comp import keep_freed_memory
from llm2comp.cli.index_options import AsJson, Engine, Folder, Header, ModelDevice, Quotes, encoder_options
from llm2comp.cli.output import print_json, wrong_usage
from llm2comp.cli.progress import Progress
from llm2comp.errors import quote_path
from llm2comp.units import format_ms

if TYPE_CHECKING:
    from llm2comp_indexes import Targets, TuneReport

__all__ = ["tune"]

_FEW = 30


def tune(
    folder: Folder,
    queries: Annotated[
        Path,
        typer.Option(metavar="FILE", help="Questions: JSON lines with _id and text, or .csv, .tsv, .parquet."),
    ],
    qrels: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Judgements: show nDCG@10 of dense search before and after too."),
    ] = None,
    recall: Annotated[
        float | None,
        typer.Option(help="Minimum share of the true nearest results, from now on.", show_default="that of the index"),
    ] = None,
    latency_ms: Annotated[
        float | None,
        typer.Option(
            metavar="MS",
            help="Maximum median time of a query from now on, in milliseconds.",
            show_default="that of the index",
        ),
    ] = None,
    k: Annotated[
        int | None,
        typer.Option(
            "--k", min=1, max=1000, help="Results per query that recall is of.", show_default="that of the index"
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="MODEL",
            help="The index's model, if it has moved.",
            show_default="as the index says",
        ),
    ] = None,
    engine: Engine = None,
    model_device: ModelDevice = None,
    header: Header = None,
    quotes: Quotes = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only measure; change nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Measure recall and latency with your own questions, and set the effort of searches by them.

    Nothing but the questions is encoded and no structure is built: `index merge` chooses the type anew, by the same
    questions.
    """
    from llm2comp.corpus.read import read_qrels, read_queries
    from llm2comp_indexes import tune_index
    from llm2comp_indexes.format.manifest import read_manifest

    texts = read_queries(queries, header=header, quotes=quotes)
    judgements = read_qrels(qrels, quotes=quotes) if qrels else None
    targets = _replace_targets(read_manifest(folder).options.targets, recall, latency_ms, k)
    running: dict[str, Any] = {"model": model, "encoder": encoder_options(engine=engine, device=model_device)}
    keep_freed_memory()
    before = _quality(folder, texts, judgements, running) if judgements else None
    with Progress("measuring") as progress:
        settings = {**running, "targets": targets, "dry_run": dry_run, "progress": progress.phase}
        report = tune_index(folder, list(texts.values()), source=queries.name, **settings)
    after = _quality(folder, texts, judgements, running) if judgements and not dry_run else None
    if as_json:
        quality = {"ndcg_at_10": {"before": before, "after": after}} if judgements else {}
        print_json({**asdict(report), "measured": report.measured.to_json(), **quality})
        return
    _print_tuned(report, folder)
    if before is not None:
        print(f"nDCG@10 of dense search: {before:.4f}" + (f", now {after:.4f}" if after is not None else ""))


def _replace_targets(targets: "Targets", recall: float | None, latency_ms: float | None, k: int | None) -> "Targets":
    from dataclasses import replace

    given = {"recall": recall, "latency_ms": latency_ms, "k": k}
    with wrong_usage():
        return replace(targets, **{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]


def _quality(folder: Path, texts: dict[str, str], qrels: dict[str, dict[str, int]] | None, opening: Any) -> float:
    from llm2comp_benchmarks.evaluate.own_index import evaluate_index
    from llm2comp_indexes import open_index

    with open_index(folder, **opening) as index:
        return evaluate_index(index, texts, qrels or {}).metrics["ndcg_at_10"]


def _print_tuned(report: "TuneReport", folder: Path) -> None:
    from llm2comp_indexes.structures.types import IndexType
    from llm2comp_indexes.tuning.choose import format_effort

    measured, k = report.measured, report.measured.targets.k
    if report.before:
        was = format_effort(IndexType(measured.type), report.before.effort)
        print(f"before: {was}: recall@{k} {report.before.recall:.3f}, {format_ms(report.before.median_ms)}")
    print(f"now:    {measured.reason}")
    print(
        f"measured with {measured.query_source}; encoding one takes {format_ms(report.encode_ms)} more, with the model "
        "loaded"
    )
    if report.questions < _FEW:
        print(f"fewer than {_FEW} questions: others like them may find less", file=sys.stderr)
    if not report.committed:
        print("nothing was changed (--dry-run)", file=sys.stderr)
    elif not measured.met:
        print(
            f"llm2comp index merge {quote_path(folder)} --type auto chooses the type anew, by these questions",
            file=sys.stderr,
        )
