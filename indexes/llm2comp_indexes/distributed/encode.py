"""Encoding of corpora on a cluster of Ray."""

import os
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from llm2comp.corpus.fields import FieldNames
from llm2comp.corpus.remote import is_remote
from llm2comp.corpus.report import SkipCounter, choose_report
from llm2comp.corpus.rows import Rows, as_corpora
from llm2comp.corpus.sources import is_named
from llm2comp.corpus.table_format import TableFormat
from llm2comp.encoder_options import EncoderOptions
from llm2comp.errors import SettingsError
from llm2comp_indexes.builder.corpora import find_sources
from llm2comp_indexes.builder.encode_shard import encode_shard
from llm2comp_indexes.builder.shard_file import SHARD
from llm2comp_indexes.distributed.blocks import Reading, cut_into_tasks
from llm2comp_indexes.distributed.client import encode_through_client
from llm2comp_indexes.distributed.joining import ordered_parts
from llm2comp_indexes.distributed.outputs import WHOLE
from llm2comp_indexes.distributed.pipeline import READ_CPUS, blocks_of_corpora
from llm2comp_indexes.distributed.report import (
    ClusterReport,
    check_not_empty,
    check_output,
    finish_run,
    push_result,
)
from llm2comp_indexes.distributed.request import ClusterOptions, OutputFormat, Request, make_request
from llm2comp_indexes.distributed.run import (
    PARTS,
    look_at_model,
    make_parts,
    parts_folder,
    prepare,
)
from llm2comp_indexes.options import IndexOptions
from llm2comp_indexes.progress import Progress, silent
from llm2comp_indexes.stores.url import StoreUrl

__all__ = ["encode_on_ray"]


def encode_on_ray(
    corpora: str | Path | Iterable[Any],
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
    header: bool | None = None,
    quotes: bool | None = None,
    fields: FieldNames | None = None,
    source: str | None = None,
    ids_are_positions: bool = False,
    csv_strings: bool = False,
    separator: str | None = None,
    encoding: str | None = None,
    encoder: EncoderOptions | None = None,
    to: str | StoreUrl | None = None,
    sync: bool = False,
) -> ClusterReport:
    """Report of the corpora encoded on a cluster of Ray, into the shard that `encode_shard` makes of them.

    Files are read by several tasks, and encoded by actors with a model each. An actor writes each block that it has
    encoded to the folder `.parts` in `output`, which all hosts must see; the blocks are joined at the end, in the order
    of the corpora. Whatever is killed - an actor, a node, this process - blocks that were written are not encoded
    again; run it again to go on.

    Args:
        corpora: Paths and names as for `build_index`, which all hosts must see; no rows in memory.
        output: A folder. Shards: the one shard is written to `shard-1-of-1` in it. Parquet: files of id, vector and
            metadata, and `vectors.json`, which describes them.
        cluster: Which cluster encodes, and with how much of it.
        format: `shards` or `parquet`.
        model: A name or folder for `llm2comp.load` that all hosts can load; None: the bundled model.
        options: Store and chunking.
        on_error: Whether a malformed row or a duplicate id raises an error, or is skipped and counted.
        overwrite: Remove an earlier result and the parts of an unfinished run.
        on_skip: Called with the message of each skipped row; None: messages go to the log.
        progress: Called with the phase and the number of its units done.
        header: As for `build_index`.
        quotes: As for `build_index`.
        fields: As for `build_index`.
        source: As for `build_index`.
        ids_are_positions: As for `build_index`.
        csv_strings: As for `build_index`.
        separator: As for `build_index`.
        encoding: As for `build_index`.
        encoder: As for `build_index`.
        to: Address of a table of a store, as of `push_index`, that gets the rows too. Actors write what they encode to
            PostgreSQL and to a server of Qdrant; this process writes other stores. At the end the table is counted and
            compared with the shard. A shard that is finished is not encoded again, only compared and written.
        sync: Delete rows from the table that the corpus does not have.

    Raises:
        ClusterError: Ray is not installed, or the cluster cannot be reached, cannot give what was asked, or failed.
        CorpusError: A corpus is missing, empty or malformed, or an id occurs twice.
        IndexFolderError: The folder holds something else, or cannot be written.
        SettingsError: Options contradict each other, or the store cannot index such vectors.
        StoreError: The store cannot be reached or refuses, the table is another one's or of other vectors, or what it
            holds at the end is not what was written.
    """
    request = make_request(output, model, encoder, options, format, cluster, overwrite=overwrite, to=to, sync=sync)
    listed = list(map(_as_name, as_corpora(corpora)))
    if (cluster := request.cluster).address is not None and cluster.address.startswith("ray://"):
        keywords: dict[str, Any] = {
            "corpora": list(map(_absolute, listed)),
            "output": request.output,
            "cluster": replace(cluster, address=None),
            "format": format,
            "model": model,
            "options": options,
            "on_error": on_error,
            "overwrite": overwrite,
            "header": header,
            "quotes": quotes,
            "fields": fields,
            "source": source,
            "ids_are_positions": ids_are_positions,
            "csv_strings": csv_strings,
            "separator": separator,
            "encoding": encoding,
            "encoder": encoder,
            "to": request.to and request.to.absolute(),
            "sync": sync,
        }
        return encode_through_client(encode_on_ray, cluster.address, keywords, SkipCounter(on_skip))
    names: dict[str, Any] = {"name": source, "positions": ids_are_positions, "fields": fields, "strings": csv_strings}
    layout, show, skips = TableFormat(header, quotes, separator, encoding), progress or silent, SkipCounter(on_skip)
    sources = find_sources(listed, layout=layout, **names)
    reading = Reading([_absolute(corpus) for corpus in listed], sources, on_error, layout)
    tasks = cut_into_tasks(reading)
    if not overwrite and format == "shards" and (request.output / WHOLE.folder / SHARD).exists():
        return _compare(corpora, request, progress, on_error, on_skip, layout, names)
    check_output(request)
    made_with, memory = look_at_model(request)
    table = prepare(request, made_with, skipping=on_error == "skip")
    start, report = time.perf_counter(), choose_report(on_error, skips)
    with parts_folder(request.output, overwrite=overwrite) as folder:
        counts = make_parts(
            folder,
            request,
            made_with,
            memory,
            lambda: blocks_of_corpora(tasks, reading, request.cluster.block_tokens),
            kind="corpora",
            spare_cpus=READ_CPUS,
            table=table,
            done=None,
            skips=skips,
            unique=on_error == "raise",
            progress=show,
        )
        check_not_empty(", ".join(map(str, listed)), counts, skips)

        return finish_run(
            folder,
            request,
            lambda: ordered_parts(folder, tasks),
            report,
            made_with,
            sources,
            counts,
            skips,
            start,
            show,
        )


def _as_name(corpus: str | Path | Rows) -> str | Path:
    if isinstance(corpus, Rows) or str(corpus) == "-":
        what = "rows in memory" if isinstance(corpus, Rows) else "standard input"
        raise SettingsError(
            f"{what} cannot be read by the hosts of a cluster; write a file that all of them see, or make a "
            "ray.data.Dataset (encode_dataset)"
        )
    return corpus


def _absolute(corpus: str | Path) -> str | Path:
    """The corpus by a name that holds in any working directory."""
    return corpus if is_named(corpus) or is_remote(corpus) else os.path.abspath(corpus)


def _compare(
    corpora: Any,
    request: Request,
    progress: Progress | None,
    on_error: Literal["raise", "skip"],
    on_skip: Callable[[str], None] | None,
    layout: TableFormat,
    names: dict[str, Any],
) -> ClusterReport:
    """Report of a finished shard, once it is known to be one of these corpora, and its table to hold it."""
    report = encode_shard(
        corpora,
        request.output,
        model=request.model,
        options=request.options,
        on_error=on_error,
        on_skip=on_skip,
        progress=progress,
        header=layout.header,
        quotes=layout.quotes,
        separator=layout.separator,
        encoding=layout.encoding,
        fields=names["fields"],
        source=names["name"],
        ids_are_positions=names["positions"],
        csv_strings=names["strings"],
        encoder=request.encoder,
    )
    pushed = push_result(request, progress or silent)
    shutil.rmtree(request.output / PARTS, ignore_errors=True)  # of a run that ended before its table was whole
    seconds = report.seconds + (pushed.seconds if pushed else 0.0)
    sizes = (report.folder, report.documents, report.rows, report.dimension, report.bytes)
    left_out = (report.skipped, report.empty, 0)
    return ClusterReport(*sizes, *left_out, 0, 0, seconds, 0.0, 0.0, 0.0, 0, 0, report.cut, pushed)
