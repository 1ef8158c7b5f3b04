"""`llm2comp demo`: from documents to answers, on the documentation that comes with every Python."""

import os
import platform
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llm2comp import keep_freed_memory
from llm2comp.cli.documents import format_documents
from llm2comp.cli.hits import format_hits, format_times
from llm2comp.cli.output import printable
from llm2comp.cli.progress import Progress
from llm2comp.errors import quote_path
from llm2comp.units import format_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llm2comp.corpus.documents import Document
    from llm2comp_indexes import Index
    from llm2comp_indexes.format.manifest import Manifest

__all__ = ["register"]

_CORPUS = "python-docs:"
_ANSWERS = 3
_QUESTIONS = ("How do I merge two sorted lists?", "pick a random element of a sequence", "unpack an archive")
"""Their first answer is right in the documentation of Python 3.11 to 3.13."""


def register(app: typer.Typer) -> None:
    """Adds the command `demo`."""
    app.command(short_help="Index the documentation of this Python and search it.")(demo)


def demo(
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="DIR", help="Folder for the index.", show_default="~/.cache/llm2comp/demo-index"
        ),
    ] = None,
) -> None:
    """Index the documentation of this Python and search it with three questions."""
    folder = output or _default_folder()
    index = _prepare(folder, overwrite=output is None)
    print(
        f"Index: {folder} ({format_documents(len(index))}, dimension {index.manifest.dimension}, "
        f"{format_bytes(index.manifest.bytes)})"
    )
    for question in _QUESTIONS:
        start = time.perf_counter()
        [hits] = index.search([question], k=_ANSWERS)
        times = format_times(time.perf_counter() - start, index.encode_seconds)
        print(f"\nQ: {question}   [{times}]\n{format_hits(hits, question=question)}")
        print("     from  " + ", ".join(printable(str(hit.metadata.get("source", hit.id))) for hit in hits))
    print(f'\nAsk your own: llm2comp search {quote_path(folder)} "your question"')


def _default_folder() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "llm2comp" / "demo-index"


def _prepare(folder: Path, *, overwrite: bool) -> "Index":
    """The index of this Python's documentation, built unless the folder holds it with the same documents and model."""
    import llm2comp
    from llm2comp_indexes import build_index, open_index
    from llm2comp_indexes.format.documents import digest_documents

    keep_freed_memory()
    start = time.perf_counter()
    model = llm2comp.load()
    print(f"Model: loaded in {time.perf_counter() - start:.1f} s, dimension {model.get_embedding_dimension()}")
    manifest = _read_manifest(folder)
    start = time.perf_counter()
    if (
        manifest
        and manifest.fingerprint == model.fingerprint
        and _holds(manifest, digest_documents(_public_documents()))
    ):
        print(
            f"Documents: Python {platform.python_version()} read in {time.perf_counter() - start:.1f} s; unchanged, "
            "so the index of the last run is used"
        )
    else:
        with Progress("documents") as progress:
            report = build_index(_public_documents(), folder, model=model, overwrite=overwrite, progress=progress.phase)
        print(
            f"Documents: Python {platform.python_version()}, {report.documents:,} read, encoded and written in "
            f"{report.seconds:.1f} s ({report.encoded / (report.encode_seconds or 1):,.0f} encoded a second)"
        )
    return open_index(folder, model=model)


def _public_documents() -> "Iterator[Document]":
    """Documentation of everything that has no name with an underscore before it."""
    from llm2comp.corpus.read import read_corpus

    for document in read_corpus(_CORPUS):
        if not any(part.startswith("_") and not part.endswith("__") for part in document.id.split(".")):
            yield document


def _read_manifest(folder: Path) -> "Manifest | None":
    from llm2comp_indexes.format.manifest import MANIFEST, read_manifest

    return read_manifest(folder) if (folder / MANIFEST).exists() else None


def _holds(manifest: "Manifest", digest: str) -> bool:
    """Whether the index holds exactly the documents with this digest."""
    from llm2comp_indexes.format.segment import Names

    return [(segment.files[Names.DOCUMENTS].sha256, segment.deleted) for segment in manifest.segments] == [(digest, 0)]
