"""Documents put together again from the rows that an index holds of them."""

from collections.abc import Sequence
from dataclasses import replace

from llm2comp.corpus.documents import Document, Markup
from llm2comp_indexes.format.chunks import BEGIN, CHUNK_FIELDS, HEADINGS, PLACE_FIELDS, REPEATED, parent_id

__all__ = ["join_chunks"]


def join_chunks(rows: Sequence[Document]) -> Document:
    """The document of these rows, in order: the row itself, or its chunks joined.

    Chunks that end at sentences give the text as it was, but for white space between them; its pages are not known, and
    it is Markdown if there were headings. Of chunks cut at tokens, what two neighbours share is taken once.
    """
    first = rows[0]
    identifier = parent_id(first.id, first.metadata)
    if identifier == first.id:
        return first
    names = (*CHUNK_FIELDS, *PLACE_FIELDS)
    metadata = {name: value for name, value in first.metadata.items() if name not in names}
    text = ""
    for row in rows:
        begin = row.metadata.get(BEGIN)
        text = (
            _append(text, row.text) if begin is None else _place(text, row.text[row.metadata.get(REPEATED, 0) :], begin)
        )
    markup = Markup.MARKDOWN if any(row.metadata.get(HEADINGS) for row in rows) else Markup.PLAIN
    return replace(first, id=identifier, text=text, metadata=metadata, markup=markup)


def _place(text: str, piece: str, begin: int) -> str:
    """The text with a piece that begins at this place; what is not known between them was white space."""
    gap = begin - len(text)
    if gap <= 0:
        return text + piece[-gap:]
    return text + (" " if gap == 1 and text else "\n" * gap) + piece


def _append(text: str, piece: str) -> str:
    """The text with a piece whose beginning may be its end."""
    for shared in range(min(len(text), len(piece)), 0, -1):
        if text.endswith(piece[:shared]):
            return text + piece[shared:]
    return f"{text} {piece}" if text else piece
