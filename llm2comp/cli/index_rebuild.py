"""`llm2comp index rebuild`: the documents of an index, encoded again with other settings."""

from dataclasses import replace
from typing import Annotated, Any, Literal

import typer

from llm2comp import keep_freed_memory
from llm2comp.cli.documents import format_documents, format_encoded, note_cut
from llm2comp.cli.index_options import (
    AsJson,
    BatchSize,
    Device,
    Dtype,
    Engine,
    Folder,
    MaxLength,
    ModelDevice,
    NewLanguage,
    TruncateDim,
    bm25_changes,
    encoder_options,
)
from llm2comp.cli.output import print_json, wrong_usage
from llm2comp.cli.progress import Progress
from llm2comp.units import format_bytes

__all__ = ["rebuild"]

_AS_IT_IS = "that of the index"


def rebuild(
    folder: Folder,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", "-m", metavar="MODEL", help="Bundled model by name, folder or Hub id.", show_default=_AS_IT_IS
        ),
    ] = None,
    index_type: Annotated[
        str | None, typer.Option("--type", "-t", metavar="NAME", help="As of `build`.", show_default=_AS_IT_IS)
    ] = None,
    store: Annotated[
        Literal["float32", "float16", "int8"] | None,
        typer.Option(help="Precision of the stored vectors.", show_default=_AS_IT_IS),
    ] = None,
    chunk_tokens: Annotated[
        int | None,
        typer.Option(min=0, help="Maximum tokens of a chunk; 0: whole documents.", show_default=_AS_IT_IS),
    ] = None,
    chunk_overlap: Annotated[
        int | None,
        typer.Option(min=0, help="Maximum tokens that neighbouring chunks share.", show_default=_AS_IT_IS),
    ] = None,
    chunk_at: Annotated[
        Literal["sentences", "tokens"] | None, typer.Option(help="Where chunks end.", show_default=_AS_IT_IS)
    ] = None,
    chunk_context: Annotated[
        bool | None,
        typer.Option(
            "--chunk-context/--no-chunk-context",
            help="Title and headings before the text of a chunk when it is encoded.",
            show_default=_AS_IT_IS,
        ),
    ] = None,
    hybrid: Annotated[
        bool | None, typer.Option("--hybrid/--no-hybrid", help="With a BM25 index.", show_default=_AS_IT_IS)
    ] = None,
    language: NewLanguage = None,
    memory_vectors: Annotated[
        Literal["int8", "binary", "none"] | None,
        typer.Option(help="Store the vectors of memory tokens too.", show_default=_AS_IT_IS),
    ] = None,
    dtype: Dtype = None,
    max_length: MaxLength = None,
    truncate_dim: TruncateDim = None,
    batch_size: BatchSize = None,
    engine: Engine = None,
    model_device: ModelDevice = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Encode all documents of an index again, with another model, other chunks or another type.

    Files that are there are read; other texts are those of the index. Until it is done, the index answers as it was,
    and `undo` goes back. Run again after an interruption, it continues where it stopped.
    """
    running: dict[str, Any] = {"batch_size": batch_size, "engine": engine, "device": model_device}
    encoder = encoder_options(dtype=dtype, max_length=max_length, truncate_dim=truncate_dim, **running)
    from llm2comp_indexes import rebuild_index
    from llm2comp_indexes.format.manifest import read_manifest

    before = read_manifest(folder)
    changes = {"type": index_type, "store": store, "chunk_tokens": chunk_tokens}
    changes |= {"chunk_overlap": chunk_overlap, "chunk_at": chunk_at, "chunk_context": chunk_context}
    given: dict[str, Any] = {name: value for name, value in changes.items() if value is not None}
    given |= bm25_changes(hybrid, language)
    if memory_vectors is not None:
        given["memory_vectors"] = None if memory_vectors == "none" else memory_vectors
    if chunk_tokens == 0:
        whole = {"chunk_tokens": None, "chunk_overlap": 0, "chunk_at": "sentences", "chunk_context": True}
        given = {**whole, **{name: value for name, value in given.items() if name != "chunk_tokens"}}
    if chunk_tokens is not None:  # instead of ends found by fidelity
        given |= {"chunk_fidelity": None, "chunk_reader": None}
    with wrong_usage():
        options = replace(before.options, **given)
    keep_freed_memory()
    with Progress("documents", total=before.documents) as progress:
        report = rebuild_index(
            folder, model=model, options=options, encoder=encoder, device=device, progress=progress.phase
        )
    note_cut(report.cut, report.below)
    if as_json:
        print_json({**report._asdict(), "measured": report.measured and report.measured.to_json()})
        return
    rows = report.measured.rows if report.measured else 0
    rate = format_encoded(report.encoded, rows, report.encode_seconds)
    print(
        f"{format_documents(report.documents)} encoded again ({report.stored:,} from the index), dimension "
        f"{report.dimension}, {format_bytes(report.bytes)}, in {report.seconds:.1f} s{rate}"
    )
    if report.measured:
        print(report.measured.reason)
