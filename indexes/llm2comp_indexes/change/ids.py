"""Checks of ids that sources make, before and while documents are added to an index."""

from collections.abc import Iterator, Mapping, Sequence

from llm2comp.corpus.entry import Entry
from llm2comp.corpus.sources import Source, source_of
from llm2comp.errors import CorpusError
from llm2comp_indexes.search.index import Index

__all__ = ["check_made_ids", "check_names"]


def check_made_ids(
    entries: Iterator[Entry], sources: Sequence[Source], before: Mapping[str, Source]
) -> Iterator[Entry]:
    """The entries, unless ids made of content would change because a source is read with other fields than before."""
    others = {
        one.name
        for one in sources
        if not one.positions and not one.files and before.get(one.name, one).fields != one.fields
    }
    for entry in entries:
        if entry.earlier_id is not None and source_of(entry.document.id) in others:
            raise CorpusError(
                f'the source "{source_of(entry.document.id)}" was added with other fields, and its rows have no ids: '
                "they would be added once more; leave out the names of fields, or give it another name (--source NAME)"
            )
        yield entry


def check_names(index: Index, sources: Sequence[Source]) -> None:
    """Refuses a source that would make ids of paths which other documents of the index may have.

    Raises:
        CorpusError: There is an id that begins with its name, and the source made no such ids before.
    """
    makers = {source.name for source in index.manifest.sources or () if source.paths}
    for source in {source for source in sources if source.paths and source.name not in makers}:
        hits = (segment.find_id_below(source.name) for segment in index.segments)
        if (identifier := next(filter(None, hits), None)) is not None:
            raise CorpusError(
                f'the index holds the id "{identifier:.80}", which the source "{source.name}" did not make, though ids '
                "made for it begin like that; give the source another name (--source NAME)"
            )
