"""Documents become rows: whole, or as chunks that end at sentences, or at tokens as older versions cut them."""

import logging
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from llm2comp.corpus.documents import Document
from llm2comp.corpus.split.splitter import Piece, Splitter
from llm2comp.errors import CorpusError, SettingsError
from llm2comp_indexes.builder.fidelity_chunks import FidelitySplitter, reading_share
from llm2comp_indexes.encoder import Encoder, RowEncoder
from llm2comp_indexes.format.chunks import (
    BEGIN,
    CHUNK_FIELDS,
    END,
    HEADINGS,
    LAST_PAGE,
    PAGE,
    PLACE_FIELDS,
    REPEATED,
    ChunkFields,
    parent_id,
)
from llm2comp_indexes.options import IndexOptions

__all__ = ["RowMaker", "make_row_encoder", "make_splitter", "make_text_of_row", "with_reader_place"]

_logger = logging.getLogger(__name__)


class RowMaker(Protocol):
    """Makes rows of documents.

    Attributes:
        cut: Number of words, rows of tables and lines of code so far that were longer than a chunk and had to be cut.
    """

    cut: int

    @property
    def below(self) -> int:
        """Number of sentences, rows and lines so far that are chunks by themselves, below the fidelity of chunks."""

    def __call__(self, document: Document, /) -> list[Document]:
        """The rows of the document."""


def make_splitter(options: IndexOptions, encoder: Any, *, fields: ChunkFields = CHUNK_FIELDS) -> RowMaker:
    """A function that makes rows of a document: the document, or chunks of at most `chunk_tokens` tokens of the model.

    With `chunk_fidelity`, of as many tokens as their memories hold.

    A chunk has the title and metadata of the document, a part of its text, the id `DOCUMENT#N` (N from 1), and the id
    of the document and N in two fields of its metadata; one that ends at sentences also has its place, its headings and
    its pages. A document that fits in one chunk stays as it is.

    Args:
        options: Size, overlap and ends of the chunks.
        encoder: The model.
        fields: Names of the two fields.

    Raises:
        SettingsError: `chunk_tokens` is set, and the model has no fast tokenizer; or `chunk_fidelity`, and it has no
            memory tokens or no reader.
        BackboneError: The reader cannot be loaded, or does not fit the model.
        CorpusError: Raised by the splitter for a document whose metadata has one of the fields already.
    """
    if not options.has_chunks:
        return _Whole()
    if options.chunk_fidelity is not None:
        return _Sentences(_fidelity_splitter(options, options.chunk_fidelity, encoder), fields)
    if options.chunk_at == "tokens":
        return _TokenWindows(options, encoder, fields)
    return _Sentences(_make_splitter(options, encoder, warn=True), fields)


def with_reader_place(options: IndexOptions) -> IndexOptions:
    """The options with the absolute path of a reader on this machine, so that additions find it from any folder."""
    reader = options.chunk_reader
    return replace(options, chunk_reader=str(Path(reader).resolve())) if reader and Path(reader).exists() else options


def make_text_of_row(options: IndexOptions, encoder: Any) -> Callable[[Document], str]:
    """A function that gives the text which is encoded for a row; it may run beside the splitter, in another thread."""
    if not options.ends_at_sentences:
        return _content
    splitter = _make_splitter(options, encoder)

    def text(row: Document) -> str:
        if parent_id(row.id, row.metadata) == row.id:
            return splitter.whole_text(row.title, row.text)
        return splitter.encoded_text(row.title, row.metadata.get(HEADINGS, ()), row.text)

    return text


def make_row_encoder(options: IndexOptions, encoder: Encoder, batch_size: int | None = None) -> RowEncoder:
    """Encodes rows as the options say: their text, and whether the vectors of memory tokens are kept too.

    Args:
        options: Those of the index.
        encoder: The model.
        batch_size: Number of texts in a batch; None: as the model has it.

    Raises:
        IndexFolderError: The model does not state its dimension.
        SettingsError: It has no memory tokens, and their vectors are wanted.
    """
    text, memory = make_text_of_row(options, encoder), options.memory_vectors is not None
    return RowEncoder(encoder, text, batch_size=batch_size, memory=memory)


def _content(row: Document) -> str:
    return row.content


def _make_splitter(options: IndexOptions, encoder: Any, *, warn: bool = False) -> Splitter:
    """The splitter; what a model reads at once bounds its chunks, too."""
    if options.chunk_fidelity is not None:
        from llm2comp.reading.frozen_reader import check_memory

        check_memory(encoder)
    limit = options.chunk_tokens or 0
    longest = getattr(encoder, "max_seq_length", None)
    if isinstance(longest, int):
        longest -= getattr(getattr(encoder, "encoder", None), "memory_tokens", 0)
        if longest < limit and warn:
            _logger.warning("chunks have at most %d tokens, as the model reads no more at once", longest)
        limit = longest if options.chunk_tokens is None else min(limit, longest)
    tokenizer = getattr(encoder, "tokenizer", None)
    return Splitter(tokenizer, limit, min(options.chunk_overlap, limit - 1), context=options.chunk_context)


def _fidelity_splitter(options: IndexOptions, share: float, encoder: Any) -> FidelitySplitter:
    from llm2comp.reading.frozen_reader import check_reader

    model = check_reader(encoder, options.chunk_reader)
    return FidelitySplitter(_make_splitter(options, model), share, reading_share(model.encoder))


class _Whole:
    cut = below = 0

    def __call__(self, document: Document, /) -> list[Document]:
        return [document]


class _Sentences:
    def __init__(self, splitter: Splitter | FidelitySplitter, fields: ChunkFields) -> None:
        self.cut = 0
        self._splitter, self._fields = splitter, fields

    @property
    def below(self) -> int:
        """As of `RowMaker`."""
        return self._splitter.below if isinstance(self._splitter, FidelitySplitter) else 0

    def __call__(self, document: Document, /) -> list[Document]:
        pieces, cut = self._splitter.split(document)
        self.cut += cut
        if len(pieces) < 2 and not _looks_like_chunk(document):
            return [document]
        _check_fields(document, self._fields)
        return [self._row(document, piece, number) for number, piece in enumerate(pieces, start=1)]

    def _row(self, document: Document, piece: Piece, number: int) -> Document:
        text = piece.repeated + document.text[piece.begin : piece.end]
        place: dict[str, Any] = {BEGIN: piece.begin, END: piece.end}
        if piece.headings:
            place[HEADINGS] = list(piece.headings)
        if piece.pages:
            place[PAGE] = piece.pages[0]
            if piece.pages[1] != piece.pages[0]:
                place[LAST_PAGE] = piece.pages[1]
        if piece.repeated:
            place[REPEATED] = len(piece.repeated)
        return _chunk(document, text, number, self._fields, place)


class _TokenWindows:
    cut = below = 0

    def __init__(self, options: IndexOptions, encoder: Any, fields: ChunkFields) -> None:
        # A copy: splitting runs beside encoding, and tokenizers keep settings between calls
        self._tokenizer: Any = deepcopy(getattr(encoder, "tokenizer", None))
        if not getattr(self._tokenizer, "is_fast", False):
            raise SettingsError(
                "chunk_tokens needs a model with a fast tokenizer, which knows where its tokens begin in the text; "
                "leave it out, or split the texts yourself"
            )
        self._size, self._overlap, self._fields = options.chunk_tokens or 0, options.chunk_overlap, fields

    def __call__(self, document: Document, /) -> list[Document]:
        settings = {"add_special_tokens": False, "return_offsets_mapping": True, "verbose": False}
        places = self._tokenizer(document.text, **settings)["offset_mapping"]
        size, overlap = self._size, self._overlap
        if len(places) <= size and not _looks_like_chunk(document):
            return [document]
        _check_fields(document, self._fields)
        starts = range(0, max(1, len(places) - overlap), size - overlap)
        ranges = [(places[start][0], places[min(start + size, len(places)) - 1][1]) for start in starts]
        return [
            _chunk(document, document.text[begin:end].strip(), number, self._fields, {})
            for number, (begin, end) in enumerate(ranges, start=1)
        ]


def _looks_like_chunk(document: Document) -> bool:
    return parent_id(document.id, document.metadata) != document.id


def _chunk(document: Document, text: str, number: int, fields: ChunkFields, place: dict[str, Any]) -> Document:
    metadata = {**document.metadata, fields.document: document.id, fields.chunk: number, **place}
    return replace(document, id=f"{document.id}#{number}", text=text, metadata=metadata)


def _check_fields(document: Document, fields: ChunkFields) -> None:
    if taken := [name for name in (*fields, *PLACE_FIELDS) if name in document.metadata]:
        way_out = (
            "rename it in the corpus"
            if fields == CHUNK_FIELDS
            else "merge the index first (llm2comp index merge DIR), which gives its own fields other names"
        )
        raise CorpusError(
            f'document "{document.id}": its metadata has the field "{taken[0]}", where chunks of this index keep '
            f"which document they are of; {way_out}"
        )
