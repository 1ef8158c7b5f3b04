"""`llm2comp index`: build an index of corpora, change it, describe it, verify it."""

import sys
from collections.abc import Callable
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from llm2comp import keep_freed_memory
from llm2comp.cli.documents import format_documents, format_ids, read_ids
from llm2comp.cli.index_facts import format_facts, list_facts
from llm2comp.cli.output import print_json, printable, wrong_usage
from llm2comp.cli.progress import Progress, note
from llm2comp.errors import IndexFolderError
from llm2comp.units import format_bytes

if TYPE_CHECKING:
    from llm2comp_indexes import IndexOptions

__all__ = ["register"]

_SHOWN_SKIPS = 10
_MANY_SEGMENTS = 20

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Folder that `index build` wrote.")]
CORPUS = "BEIR folder, .jsonl, .parquet, .csv, .tsv (or .gz .xz .zst), folder of texts, hub:NAME, python-docs:"
Corpora = Annotated[list[str], typer.Argument(metavar="CORPUS", help=CORPUS)]
Vectors = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FILE.npy|DIR",
        help="Vectors made elsewhere (.npy, with --ids), or the shards of `encode` in DIR; may be repeated.",
    ),
]
Model = Annotated[
    str | None, typer.Option("--model", "-m", help="Model folder or Hub name; left out: the bundled model.")
]
OnError = Annotated[Literal["raise", "skip"], typer.Option(help="Stop at a malformed row, or skip and count it.")]
Device = Annotated[
    Literal["auto", "cpu", "cuda"],
    typer.Option(help="Where FAISS trains and adds; auto takes a GPU if FAISS sees one."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the report as JSON.")]
Type = Annotated[
    str,
    typer.Option("--type", "-t", help="auto (chosen by measuring), flat, hnsw, ivf, ivfpq, or a FAISS factory string."),
]
Memory = Annotated[
    str | None,
    typer.Option(metavar="SIZE", help="Most memory that searching may hold, such as 500M, 4G or 16GiB; left out: any."),
]
Latency = Annotated[
    float | None, typer.Option(metavar="MS", help="Longest median time of one query, in milliseconds; left out: 10.")
]
Recall = Annotated[float, typer.Option(help="Share of the true best answers to be found.")]
Answers = Annotated[
    int, typer.Option("--k", min=1, max=1000, help="Answers a query that recall and latency are measured for.")
]
Hybrid = Annotated[bool, typer.Option("--hybrid", help="Keep a BM25 index too, for search --mode bm25 and hybrid.")]


def register(app: typer.Typer) -> None:
    """Adds the command group `index`."""
    group = typer.Typer(
        no_args_is_help=True, help="Build an index, change it, describe it, verify it.", rich_markup_mode=None
    )
    summaries: dict[Callable[..., None], str] = {
        build: "Encode documents and index them.",
        add: "Add new documents, replace changed ones.",
        delete: "Delete documents by id.",
        merge: "Rewrite the index as one segment.",
        info: "Say what an index holds, and how it searches.",
        verify: "Compare every byte with its checksum.",
    }
    for command, summary in summaries.items():
        group.command(short_help=summary)(command)
    app.add_typer(group, name="index")


def build(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder to write the index to.")],
    corpora: Annotated[
        list[str] | None,
        typer.Argument(metavar="CORPUS", help=f"{CORPUS}; with --vectors, optional.", show_default=False),
    ] = None,
    model: Model = None,
    vectors: Vectors = None,
    ids: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Ids of the rows of --vectors FILE.npy: text, one a line, or .npy."),
    ] = None,
    query_vectors: Annotated[
        Path | None, typer.Option(metavar="FILE.npy", help="With --vectors: queries to measure with.")
    ] = None,
    index_type: Type = "auto",
    memory: Memory = None,
    latency_ms: Latency = None,
    recall: Recall = 0.95,
    k: Answers = 10,
    store: Annotated[
        Literal["float32", "float16", "int8"], typer.Option(help="Precision of the stored vectors.")
    ] = "float32",
    chunk_tokens: Annotated[
        int | None, typer.Option(min=1, help="Split documents into chunks of at most so many tokens.")
    ] = None,
    chunk_overlap: Annotated[int, typer.Option(min=0, help="Tokens that neighbouring chunks share.")] = 0,
    hybrid: Hybrid = False,
    device: Device = "auto",
    on_error: OnError = "raise",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the index that DIR holds.")] = False,
    as_json: AsJson = False,
) -> None:
    """Encode documents and write an index of them; a build that was cut off goes on where it was when it is run again.

    With --vectors nothing is encoded: the vectors are there, and are scaled to unit length.
    """
    if not corpora and not vectors:
        raise typer.BadParameter("give at least one CORPUS, or --vectors")
    if not vectors and (ids or query_vectors):
        raise typer.BadParameter("--ids and --query-vectors go with --vectors")
    options = _options(
        memory,
        latency_ms,
        recall,
        k,
        type=index_type,
        store=store,
        chunk_tokens=chunk_tokens,
        chunk_overlap=chunk_overlap,
        hybrid=hybrid,
    )
    from llm2comp.corpus.size import estimate_documents
    from llm2comp_indexes import VectorFiles, build_from_vectors, build_index

    skips, shards = Skips(), any(Path(path).is_dir() for path in vectors or [])
    with Progress("documents", about=estimate_documents(corpora) if corpora and not shards else None) as progress:
        settings: dict[str, Any] = {
            "model": model,
            "options": options,
            "device": device,
            "on_error": on_error,
            "overwrite": overwrite,
        }
        settings |= {"on_skip": skips.add, "progress": progress.phase}
        if shards and vectors:
            report = build_from_vectors(
                VectorFiles([*vectors, *(corpora or [])], ids, query_vectors), output, **settings
            )  # --vectors DIR1 DIR2 …
        elif vectors:
            report = build_from_vectors(
                VectorFiles(vectors, ids, query_vectors), output, corpora=corpora or [], **settings
            )
        else:
            keep_freed_memory()
            report = build_index(corpora or [], output, **settings)
    skips.summarize()
    if as_json:
        from dataclasses import asdict

        print_json({"output": str(output), **asdict(report), "measured": report.measured.to_json()})
        return
    rate = format_encoded(report.encoded, report.measured.rows, report.encode_seconds)
    print(
        f"{report.documents:,} documents, dimension {report.dimension}, {format_bytes(report.bytes)}, in "
        f"{report.seconds:.1f} s{rate}"
    )
    print(report.measured.reason)
    known = " --model MODEL" if vectors and not shards else ""
    print(f'Search it: llm2comp search {quote(str(output))} "your question"{known}')


def add(
    folder: Folder,
    corpora: Corpora,
    model: Model = None,
    device: Device = "auto",
    on_error: OnError = "raise",
    as_json: AsJson = False,
) -> None:
    """Add new documents and replace changed ones; those the index holds unchanged are not encoded again."""
    from llm2comp_indexes import add_documents
    from llm2comp_indexes.format.manifest import read_manifest

    keep_freed_memory()
    skips = Skips()
    with Progress("documents") as progress:
        report = add_documents(
            folder, corpora, model=model, device=device, on_error=on_error, on_skip=skips.add, progress=progress.phase
        )
    skips.summarize()
    if as_json:
        print_json(report._asdict())
        return
    manifest = read_manifest(folder)
    told = f"{report.added:,} added, {report.changed:,} replaced, {report.unchanged:,} unchanged"
    print(f"{told}, in {report.seconds:.1f} s; {format_documents(manifest.documents)} now")
    if len(manifest.segments) >= _MANY_SEGMENTS:
        note(
            f"{len(manifest.segments)} segments, each of which every search visits: `llm2comp index merge "
            f"{quote(str(folder))}` makes one of them"
        )


def delete(
    folder: Folder,
    identifiers: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Ids of documents.")] = None,
    ids: Annotated[Path | None, typer.Option("--ids", metavar="FILE", help="File of ids, one a line.")] = None,
    as_json: AsJson = False,
) -> None:
    """Delete documents by id; ids the index does not hold are named, and the rest is deleted all the same."""
    if not identifiers and ids is None:
        raise typer.BadParameter("give ids, or --ids FILE with one a line")
    wanted = [*(identifiers or []), *(read_ids(ids) if ids else [])]
    from llm2comp_indexes import delete_documents
    from llm2comp_indexes.format.manifest import read_manifest

    report = delete_documents(folder, wanted)
    manifest = read_manifest(folder)
    if report.missing:
        chunks = manifest.options.chunk_tokens is not None and any("#" in name for name in report.missing)
        hint = " (documents are deleted whole: give the id without #N)" if chunks else ""
        note(f"not in the index: {format_ids(report.missing)}{hint}")
    if as_json:
        print_json(report._asdict())
        return
    merge_hint = (
        f"; `llm2comp index merge {quote(str(folder))}` frees the space" if report.deleted and manifest.segments else ""
    )
    print(f"{report.deleted:,} deleted, {format_documents(manifest.documents)} left{merge_hint}")


def merge(
    folder: Folder,
    index_type: Annotated[
        str | None, typer.Option("--type", "-t", help="Another type from now on; left out: that of the build.")
    ] = None,
    memory: Memory = None,
    latency_ms: Latency = None,
    recall: Annotated[float | None, typer.Option(help="Share of the true best answers to be found.")] = None,
    k: Annotated[
        int | None,
        typer.Option("--k", min=1, max=1000, help="Answers a query that recall and latency are measured for."),
    ] = None,
    hybrid: Annotated[
        bool | None, typer.Option("--hybrid/--no-hybrid", help="With or without a BM25 index from now on.")
    ] = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Rewrite the index as one segment without what was deleted; nothing is encoded again."""
    from dataclasses import replace

    from llm2comp.units import parse_bytes
    from llm2comp_indexes import merge_index
    from llm2comp_indexes.format.manifest import read_manifest

    before = read_manifest(folder)
    options = before.options
    with wrong_usage():
        given = {"memory": parse_bytes(memory) if memory else None, "latency_ms": latency_ms, "recall": recall, "k": k}
        targets = replace(options.targets, **{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
    options = replace(
        options, targets=targets, type=index_type or options.type, hybrid=options.hybrid if hybrid is None else hybrid
    )
    with Progress("documents", total=before.documents) as progress:
        report = merge_index(folder, options=options, device=device, progress=progress.phase)
    if as_json:
        print_json({**report._asdict(), "measured": report.measured and report.measured.to_json()})
    elif report.measured is None:
        print(
            f"{folder}: nothing to merge: {'one segment, nothing deleted' if report.segments else 'it is empty; what is added will be as asked for'}"
        )
    else:
        what = f"{report.segments} segments merged into one" if report.segments > 1 else "rewritten"
        print(
            f"{what}, {report.dropped:,} deleted rows dropped, in {report.seconds:.1f} s; "
            f"{format_documents(before.documents)}"
        )
        print(report.measured.reason)


def info(
    folder: Folder,
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="PNG", help="Draw recall against latency, as measured when the index was built, to this file."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what an index holds, which model made it, and how well it searches."""
    from llm2comp_indexes.format.manifest import Names, read_manifest, segment_folder
    from llm2comp_indexes.tuning.report import read_report

    manifest = read_manifest(folder)
    largest = max(manifest.segments, key=lambda segment: segment.rows, default=None)
    report = (
        read_report(segment_folder(folder, largest) / Names.REPORT)
        if largest and Names.REPORT in largest.files
        else None
    )
    if plot is not None:
        from llm2comp_indexes.tuning.plot import plot_curve

        if report is None:
            raise IndexFolderError(
                f"{folder}: nothing was measured that could be drawn; llm2comp index merge measures, if the index "
                "holds documents"
            )
        plot_curve(report, plot)
        print(f"recall against latency: {plot}", file=sys.stderr)
    if as_json:
        print_json({**list_facts(manifest), "measured": report and report.to_json()})
        return
    for name, text in format_facts(manifest, report).items():
        print(f"{name:<12} {printable(text)}")


def verify(folder: Folder) -> None:
    """Compare every byte of an index with its checksums."""
    from llm2comp_indexes import verify_index

    manifest = verify_index(folder)
    print(f"{folder}: whole: {manifest.documents:,} documents, {format_bytes(manifest.bytes)}, every checksum matches")


def _options(memory: str | None, latency_ms: float | None, recall: float, k: int, **rest: Any) -> "IndexOptions":
    from llm2comp.units import parse_bytes
    from llm2comp_indexes import IndexOptions, Targets

    with wrong_usage():
        return IndexOptions(
            targets=Targets(memory=parse_bytes(memory) if memory else None, latency_ms=latency_ms, recall=recall, k=k),
            **rest,
        )


def format_encoded(encoded: int, rows: int, seconds: float) -> str:
    """In brackets, how many rows were encoded a second; and how many at all, where some were there from a run that was stopped."""
    if not encoded or not seconds:
        return ""
    found = f"{encoded:,} encoded now, " if encoded < rows else ""
    return f" ({found}{encoded / seconds:,.0f} encoded a second)"


class Skips:
    """Prints the first messages of skipped rows and counts all."""

    def __init__(self) -> None:
        self._count = 0

    def add(self, message: str) -> None:
        self._count += 1
        if self._count <= _SHOWN_SKIPS:
            note(f"skipped: {printable(message)}")

    def summarize(self) -> None:
        if self._count:
            unshown = f" (the first {_SHOWN_SKIPS} are named above)" if self._count > _SHOWN_SKIPS else ""
            print(f"skipped {self._count:,} row{'s' * (self._count > 1)} in all{unshown}", file=sys.stderr)
