"""`llm2comp index plan`: what a build will take and hold, before anything but a sample is encoded."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llm2comp import keep_freed_memory
from llm2comp.cli.documents import Skips, format_documents
from llm2comp.cli.index_options import (
    AsJson,
    BatchSize,
    ChunkAt,
    ChunkContext,
    ChunkOverlap,
    ChunkTokens,
    Corpora,
    CsvStrings,
    Device,
    Dtype,
    Encoding,
    Engine,
    Header,
    Hybrid,
    IdField,
    IdsArePositions,
    Language,
    Latency,
    Limit,
    MaxLength,
    Memory,
    MemoryVectors,
    MetadataFields,
    Model,
    ModelDevice,
    OnError,
    Quotes,
    Recall,
    Results,
    Separator,
    Source,
    Store,
    TextField,
    TitleField,
    TruncateDim,
    Type,
    check_layout,
    encoder_options,
    field_names,
    index_options,
)
from llm2comp.cli.output import print_json
from llm2comp.cli.progress import Progress
from llm2comp.errors import IndexFolderError
from llm2comp.units import format_bytes, format_ms

if TYPE_CHECKING:
    from llm2comp_indexes import Forecast

__all__ = ["plan", "print_forecast"]


def plan(
    corpora: Corpora,
    model: Model = None,
    dtype: Dtype = None,
    max_length: MaxLength = None,
    truncate_dim: TruncateDim = None,
    batch_size: BatchSize = None,
    engine: Engine = None,
    model_device: ModelDevice = None,
    limit: Limit = None,
    seconds: Annotated[
        float, typer.Option(min=0.1, metavar="S", help="Maximum time to encode the sample, about, in seconds.")
    ] = 10.0,
    index_type: Type = "auto",
    memory: Memory = None,
    latency_ms: Latency = None,
    recall: Recall = 0.95,
    k: Results = 10,
    store: Store = "float32",
    chunk_tokens: ChunkTokens = None,
    chunk_overlap: ChunkOverlap = 0,
    chunk_at: ChunkAt = "sentences",
    chunk_context: ChunkContext = True,
    hybrid: Hybrid = False,
    language: Language = None,
    memory_vectors: MemoryVectors = None,
    device: Device = "auto",
    on_error: OnError = "raise",
    header: Header = None,
    quotes: Quotes = None,
    id_field: IdField = None,
    title_field: TitleField = None,
    text_field: TextField = None,
    metadata_fields: MetadataFields = None,
    source: Source = None,
    ids_are_positions: IdsArePositions = False,
    csv_strings: CsvStrings = False,
    separator: Separator = None,
    encoding: Encoding = None,
    as_json: AsJson = False,
) -> None:
    """Show what `index build` with the same options will take: documents, tokens, time, memory, disk and type.

    The corpus is read once, a random sample of it is encoded, and nothing is written. Targets that cannot be met are
    refused.
    """
    chunks: dict[str, Any] = {"chunk_tokens": chunk_tokens, "chunk_overlap": chunk_overlap}
    chunks |= {"chunk_at": chunk_at, "chunk_context": chunk_context, "memory_vectors": memory_vectors}
    words: dict[str, Any] = {"hybrid": hybrid, "language": language}
    running: dict[str, Any] = {"batch_size": batch_size, "engine": engine, "device": model_device}
    settings: dict[str, Any] = {
        "model": model,
        "encoder": encoder_options(dtype=dtype, max_length=max_length, truncate_dim=truncate_dim, **running),
        "options": index_options(memory, latency_ms, recall, k, type=index_type, store=store, **words, **chunks),
        "device": device,
        "on_error": on_error,
        "header": header,
        "quotes": quotes,
        "fields": field_names(id_field, title_field, text_field, metadata_fields),
        "source": source,
        "ids_are_positions": ids_are_positions,
        "csv_strings": csv_strings,
        **check_layout(separator, encoding),
        "limit": limit,
        "seconds": seconds,
    }
    print_forecast(corpora, settings, as_json=as_json)


def print_forecast(
    corpora: list[str], settings: dict[str, Any], *, output: Path | None = None, as_json: bool = False
) -> None:
    """Prints the forecast of a build with these arguments.

    Args:
        corpora: The corpora.
        settings: Further arguments of `forecast_build`.
        output: Folder of the index, whose disk is checked for space; None: not checked.
        as_json: Print it as JSON.

    Raises:
        IndexFolderError: The disk of the folder has too little space.
    """
    from llm2comp.corpus.size import estimate_documents
    from llm2comp_indexes import forecast_build

    keep_freed_memory()
    skips = Skips()
    with Progress("documents read", about=estimate_documents(corpora)) as progress:
        forecast = forecast_build(corpora, on_skip=skips.add, progress=progress.phase, **settings)
    skips.summarize()
    if as_json:
        from dataclasses import asdict

        print_json(asdict(forecast))
    else:
        for name, text in _format_forecast(forecast).items():
            print(f"{name:<12} {text}")
    if output is not None:
        _check_space(output, forecast.bytes)


def _format_forecast(forecast: "Forecast") -> dict[str, str]:
    rate = forecast.rows / forecast.encode_seconds if forecast.encode_seconds else 0.0
    whole = forecast.sampled == forecast.documents
    about = "" if whole else "about "
    others = f"or {', '.join(forecast.others)}: a build chooses by measuring" if forecast.others else ""
    exact = f"exact search takes about {format_ms(forecast.exact_ms)} a query here"
    texts = {
        "documents": f"{forecast.documents:,}, {forecast.characters:,} characters",
        "rows": f"{about}{forecast.rows:,} chunks" if forecast.rows != forecast.documents else "",
        "tokens": f"{about}{forecast.tokens:,}, {forecast.tokens / forecast.rows:.0f} a row"
        if forecast.tokens is not None
        else "",
        "cut": f"{forecast.cut:.1%} of the rows are longer than the model reads; --chunk-tokens makes several of them"
        if forecast.cut
        else "",
        "encoding": f"about {format_duration(forecast.encode_seconds)}, {rate:,.0f} rows a second",
        "reading": f"{format_duration(forecast.read_seconds)}, beside the encoding",
        "type": f"{forecast.type}{f' {others}' if others else ''} ({exact})",
        "memory": f"{format_bytes(forecast.memory)} to search",
        "disk": f"about {format_bytes(forecast.bytes)}",
        "dimension": f"{forecast.dimension:,}",
        "measured on": f"{format_documents(forecast.sampled)}, {forecast.encoded:,} rows of which were encoded",
    }
    return {name: text for name, text in texts.items() if text}


def format_duration(seconds: float) -> str:
    """Duration with two or three digits: 4.2 s, 75 s, 12 min, 3.4 h, 2.1 days."""
    for unit, size in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"


def _check_space(output: Path, size: int) -> None:
    place = next(path for path in (output.absolute(), *output.absolute().parents) if path.exists())
    free = shutil.disk_usage(place).free
    if size > free:
        raise IndexFolderError(
            f"{output}: the index will take about {format_bytes(size)}, and {format_bytes(free)} are free there; free "
            "some space, name another folder with -o, or store less (--store)"
        )
