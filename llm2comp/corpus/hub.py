"""Data sets of the Hugging Face Hub, or local folders that `datasets` can load, as rows."""

from collections.abc import Iterator
from typing import Any

from llm2comp.corpus.columns import Columns
from llm2comp.corpus.parquet import to_rows
from llm2comp.corpus.records import Record, to_records
from llm2comp.corpus.report import Report, note_left_out
from llm2comp.errors import CorpusError, one_line

__all__ = ["read_hub"]

_ROWS = 256  # read at once


def read_hub(source: str, report: Report, columns: Columns) -> Iterator[Record]:
    """Rows of the data set `hub:NAME[:CONFIG][:SPLIT]`.

    Args:
        source: The name.
        report: Receives a message for each row with a value that Python cannot hold.
        columns: Known names of fields.

    Raises:
        CorpusError: The name does not fit, or the data set cannot be loaded.
    """
    name, config, split = [*source.removeprefix("hub:").split(":"), "", ""][:3]
    if not name or source.count(":") > 3:
        raise CorpusError(f"{source}: expected hub:NAME[:CONFIG][:SPLIT], such as hub:BeIR/scifact:corpus")
    import datasets

    try:
        loaded = datasets.load_dataset(name, config or None, split=split or None, streaming=True)
        if isinstance(loaded, dict):
            if len(loaded) > 1:
                raise CorpusError(
                    f"{source}: has the splits {', '.join(loaded)}; name one: hub:{name}:{config}:{next(iter(loaded))}"
                )
            loaded = next(iter(loaded.values()))
        yield from to_records(_to_fields(loaded, source, report), source, name, report, columns)
    except CorpusError:
        raise
    except Exception as error:  # of a dozen kinds, for a data set that is missing, private or broken
        raise CorpusError(f"{source}: cannot be loaded as a data set: {one_line(error)}") from error


def _to_fields(loaded: Any, source: str, report: Report) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows of a data set as (number from 1, fields), as Arrow holds them if its types are known; without images."""
    if not loaded.features:
        yield from enumerate(loaded, start=1)
        return
    media = [name for name, feature in loaded.features.items() if _is_decoded(feature)]
    if media:
        note_left_out(f"{source}:1", tuple(media))
    number = 0
    for table in loaded.with_format("arrow").iter(batch_size=_ROWS):
        for batch in table.drop_columns(media).to_batches():
            yield from to_rows(batch, source, number, report)
            number += batch.num_rows


def _is_decoded(feature: Any) -> bool:
    """Whether values of this type, or within it, are files that `datasets` decodes: images, sound, video."""
    if isinstance(feature, dict):
        return any(map(_is_decoded, feature.values()))
    return hasattr(feature, "decode_example") or (hasattr(feature, "feature") and _is_decoded(feature.feature))
