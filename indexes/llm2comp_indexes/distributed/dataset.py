"""Encoding of a dataset of Ray Data."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

from llm2comp.corpus.fields import FieldNames
from llm2comp.corpus.report import SkipCounter
from llm2comp.corpus.rows import Rows
from llm2comp.corpus.table_format import TableFormat
from llm2comp.encoder_options import EncoderOptions
from llm2comp.errors import SettingsError
from llm2comp_indexes.builder.corpora import find_sources
from llm2comp_indexes.distributed.done import write_done
from llm2comp_indexes.distributed.parts import list_parts, read_facts, read_part
from llm2comp_indexes.distributed.pipeline import blocks_of_dataset
from llm2comp_indexes.distributed.report import (
    ClusterReport,
    check_not_empty,
    check_output,
    finish_run,
    finish_table,
    lacks_table,
)
from llm2comp_indexes.distributed.request import ClusterOptions, OutputFormat, make_request
from llm2comp_indexes.distributed.run import (
    look_at_model,
    make_parts,
    parts_folder,
    prepare,
)
from llm2comp_indexes.format.documents import parse_line
from llm2comp_indexes.options import IndexOptions
from llm2comp_indexes.progress import Progress, silent
from llm2comp_indexes.stores.url import StoreUrl

__all__ = ["encode_dataset"]

_CPUS = 1.0
"""CPUs that stay free for reading the dataset, whose tasks hold a whole one each."""
_DONE = "done.npy"


def encode_dataset(
    dataset: Any,
    output: str | Path,
    *,
    cluster: ClusterOptions | None = None,
    format: OutputFormat = "shards",
    model: str | Path | None = None,
    options: IndexOptions | None = None,
    on_error: Literal["raise", "skip"] = "raise",
    overwrite: bool = False,
    on_skip: Callable[[str], None] | None = None,
    progress: Progress | None = None,
    fields: FieldNames | None = None,
    source: str | None = None,
    encoder: EncoderOptions | None = None,
    to: str | StoreUrl | None = None,
    sync: bool = False,
) -> ClusterReport:
    """Report of the rows of a dataset of Ray Data, encoded as `encode_on_ray` encodes corpora.

    The dataset may come in any order and in other blocks when it is run again: documents are known by their ids. The
    order of the result is that of digests of blocks. Equal rows are one document.

    Args:
        dataset: A `ray.data.Dataset` with a row for each document.
        output: As for `encode_on_ray`.
        cluster: As for `encode_on_ray`, without an address: the dataset has its cluster.
        format: As for `encode_on_ray`.
        model: As for `encode_on_ray`.
        options: As for `encode_on_ray`.
        on_error: As for `encode_on_ray`. Two different documents with one id are always an error.
        overwrite: As for `encode_on_ray`.
        on_skip: As for `encode_on_ray`.
        progress: As for `encode_on_ray`.
        fields: Which columns are id, title, text and metadata, as for `build_index`.
        source: What ids begin with that are made for rows without one; None: `rows`.
        encoder: As for `encode_on_ray`.
        to: As for `encode_on_ray`.
        sync: Delete rows from the table that the dataset does not have.

    Raises:
        ClusterError: The cluster cannot give what was asked, or failed.
        CorpusError: A row is malformed, or there is none.
        IndexFolderError: The folder holds something else, or cannot be written; or two documents have the same id.
        SettingsError: Options contradict each other, the dataset is none, or the store cannot index such vectors.
        StoreError: As for `encode_on_ray`.
    """
    request = make_request(output, model, encoder, options, format, cluster, overwrite=overwrite, to=to, sync=sync)
    if not hasattr(dataset, "map_batches") or not hasattr(dataset, "context"):
        raise SettingsError(f"dataset is of type {type(dataset).__name__}, expected a ray.data.Dataset")
    if request.cluster.address is not None:
        raise SettingsError("an address is given with a dataset, which is in the cluster of this process; leave it out")
    [made_from] = find_sources([Rows([])], name=source, fields=fields, layout=TableFormat(None, None, None, None))
    show, skips, start = progress or silent, SkipCounter(on_skip), time.perf_counter()
    if not (lacking := lacks_table(request)):
        check_output(request)
    made_with, memory = look_at_model(request)
    if lacking:
        return finish_table(request, made_with, show)
    table = prepare(request, made_with, skipping=False)
    with parts_folder(request.output, overwrite=overwrite) as folder:
        done = _write_done(folder)
        counts = make_parts(
            folder,
            request,
            made_with,
            memory,
            lambda: blocks_of_dataset(dataset, made_from, on_error, request.cluster.block_tokens),
            kind="dataset",
            spare_cpus=_CPUS,
            table=table,
            done=done,
            skips=skips,
            unique=False,
            progress=show,
        )
        if not any(facts.documents for path in list_parts(folder) if (facts := read_facts(path))):
            check_not_empty("dataset", counts, skips)
        parts = partial(list_parts, folder)
        return finish_run(folder, request, parts, None, made_with, [made_from], counts, skips, start, show)


def _write_done(folder: Path) -> str | None:
    """File of the documents that are in the parts of earlier runs, if there are any."""

    def identifiers() -> Iterator[str]:
        for path in list_parts(folder):
            for row in read_part(path).rows:
                if row.document is not None:
                    yield parse_line(row.document)[0]

    path = folder / _DONE
    return str(path) if write_done(path, identifiers()) else None
