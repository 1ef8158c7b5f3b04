"""What a run on a cluster is asked to do, checked as far as no cluster is needed."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from llm2comp.encoder_options import EncoderOptions
from llm2comp.errors import ClusterError, SettingsError
from llm2comp.optional import optional_import
from llm2comp_indexes.distributed.capacity import check_wishes
from llm2comp_indexes.options import IndexOptions, refuse_memory_vectors
from llm2comp_indexes.stores.url import StoreUrl, parse_store_url

__all__ = ["ClusterOptions", "OutputFormat", "Request", "make_request"]

OutputFormat = Literal["shards", "parquet"]


@dataclass(frozen=True, slots=True)
class ClusterOptions:
    """Which cluster encodes, and with how much of it.

    Attributes:
        address: `auto`, `HOST:PORT` of a cluster of Ray, or `ray://HOST:PORT`; None: the one that this process is
            connected to, or else one that is started on this machine and ends with the call.
        actors: Number of processes with a model each; None: one for each GPU, or for four CPUs where there are none.
        gpus_per_actor: GPUs of each, which may be a share of one; None: 1 if the cluster has any.
        object_store: Bytes of the object store of a cluster that is started.
        block_tokens: Number of tokens that are encoded at once, and lost when a process ends, estimated from the
            length of the texts.

    Raises:
        SettingsError: A number is out of its range.
    """

    address: str | None = None
    actors: int | None = None
    gpus_per_actor: float | None = None
    object_store: int = 256 << 20
    block_tokens: int = 1 << 16

    def __post_init__(self) -> None:
        check_wishes(self.actors, self.gpus_per_actor)
        if self.block_tokens < 1:
            raise SettingsError(f"block_tokens is {self.block_tokens}, expected at least 1")


class Request(NamedTuple):
    """What a run is to do.

    Attributes:
        output: Folder of the result.
        model: A name or folder for `llm2comp.load`; None: the bundled model.
        encoder: How the model runs.
        options: Store and chunking.
        format: What is written.
        cluster: Which cluster encodes.
        overwrite: Whether an earlier result and earlier parts are removed.
        to: Table of a store that gets the rows too; None: none.
        sync: Whether rows that the corpus does not have are deleted from the table.
    """

    output: Path
    model: str | None
    encoder: EncoderOptions
    options: IndexOptions
    format: OutputFormat
    cluster: ClusterOptions
    overwrite: bool
    to: StoreUrl | None = None
    sync: bool = False

    def check(self) -> None:
        """Raises an error if Ray is not installed, or the format or the table does not fit."""
        if self.format not in get_args(OutputFormat):
            raise SettingsError(f"format is {self.format!r}, expected shards or parquet")
        if self.format == "parquet" and self.options.store == "int8":
            raise SettingsError("store int8 cannot be written to Parquet, which has no such vectors; take float16")
        refuse_memory_vectors(self.options, "an encoding on a cluster gives no vectors of memory tokens")
        self._check_table()
        if find_spec("ray") is None:  # imported later, when the environment says how a cluster is started
            optional_import("ray", extra="ray", needed_by="an encoding on a cluster", error_type=ClusterError)

    def _check_table(self) -> None:
        if self.to is None:
            if self.sync:
                raise SettingsError(
                    "sync deletes rows from a table, and none is named; name it with --to, or leave it out"
                )
            return
        if self.format == "parquet":
            raise SettingsError(
                "format parquet has no texts, with which a table (--to) is compared at the end; take format shards"
            )
        if self.options.store == "int8":
            raise SettingsError("store int8 is none that a table (--to) has; take float32 or float16")


def make_request(
    output: str | Path,
    model: Any,
    encoder: EncoderOptions | None,
    options: IndexOptions | None,
    format: OutputFormat,
    cluster: ClusterOptions | None,
    *,
    overwrite: bool,
    to: str | StoreUrl | None = None,
    sync: bool = False,
) -> Request:
    """What a run is to do, checked as far as the cluster is not needed.

    Raises:
        ClusterError: Ray is not installed.
        SettingsError: The model is an object, the address is of no store, or options contradict each other.
    """
    if model is not None and not isinstance(model, str | Path):
        raise SettingsError(
            f"model is of type {type(model).__name__}, expected a name or a folder, which every host of the cluster "
            "can load"
        )
    name = None if model is None else str(model)
    chosen = (encoder or EncoderOptions(), options or IndexOptions(), format, cluster or ClusterOptions())
    url = parse_store_url(to) if isinstance(to, str) else to
    request = Request(Path(output).resolve(), name, *chosen, overwrite, url, sync)
    request.check()
    return request
