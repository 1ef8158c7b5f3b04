"""The type, memory and size on disk that an index will have, before there are any vectors of it."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from llm2comp.errors import SettingsError
from llm2comp.units import format_bytes, format_ms
from llm2comp_indexes.format.documents import ROW_BYTES
from llm2comp_indexes.format.ids import ID_BYTES
from llm2comp_indexes.format.vectors import Storage, StorageWriter, open_storage, storage_bytes
from llm2comp_indexes.options import IndexOptions, Store, format_latency
from llm2comp_indexes.structures.structure import IndexType, memory_bytes, parse_type
from llm2comp_indexes.tuning.choose import format_too_large
from llm2comp_indexes.tuning.measure import measure_curve
from llm2comp_indexes.tuning.trials import Candidate, list_candidates, rows_to_sample

__all__ = ["ExpectedType", "expect_type", "row_files_bytes", "structure_bytes"]

_QUERIES = 32
_FLOOR_ROWS = 64


class ExpectedType(NamedTuple):
    """The type that a build will take, as far as that is known without its vectors.

    Attributes:
        type: FAISS factory string.
        memory: Bytes that searching will hold in memory.
        exact_ms: Median time in milliseconds in which one query is compared with all vectors on this machine, expected
            from a sample of random vectors.
        certain: Whether the build will take this type; otherwise it chooses by measuring.
        others: Other types that it will try.
    """

    type: IndexType
    memory: int
    exact_ms: float
    certain: bool
    others: tuple[IndexType, ...] = ()


def expect_type(options: IndexOptions, rows: int, dimension: int, *, workdir: Path | None = None) -> ExpectedType:
    """The type that an index of so many rows will have.

    Raises:
        SettingsError: FAISS cannot make the type of so many rows; or no type, or not the one given, keeps to the
            targets of memory and latency.
    """
    exact_ms, floor_ms = _time_exact(rows, dimension, options, workdir)
    if floor_ms > options.targets.latency:
        raise SettingsError(
            f"latency is {format_latency(options.targets)}, and a search of {_FLOOR_ROWS} vectors alone takes "
            f"{format_ms(floor_ms)} on this machine; allow more (--latency-ms)"
        )
    if options.type == "auto":
        return _expect_choice(options, rows, dimension, exact_ms)
    kind = parse_type(options.type, rows=rows, dimension=dimension)
    memory = memory_bytes(kind, rows=rows, dimension=dimension, store=options.store)
    if not options.targets.allows(memory):
        raise SettingsError(
            f"memory is {format_bytes(options.targets.memory or 0)}, and {kind.factory} of {rows:,} vectors of "
            f"dimension {dimension} needs {format_bytes(memory)}; allow that (--memory), or take type auto"
        )
    if kind.family == "flat" and exact_ms > options.targets.latency:
        raise SettingsError(
            f"latency is {format_latency(options.targets)}, and comparing all {rows:,} vectors takes about "
            f"{format_ms(exact_ms)} on this machine; allow that (--latency-ms), or take type auto"
        )
    return ExpectedType(kind, memory, exact_ms, True)


def _expect_choice(options: IndexOptions, rows: int, dimension: int, exact_ms: float) -> ExpectedType:
    listed = list_candidates(rows, dimension, options.store)
    fitting = [candidate for candidate in listed if options.targets.allows(candidate.memory)]
    if not fitting:
        raise SettingsError(format_too_large(listed, rows, dimension, options.targets))
    fast = exact_ms <= options.targets.latency
    tried = [candidate for candidate in fitting if candidate.type.family != "flat" or fast]
    first: Candidate = (tried or fitting)[0]
    if first.type.family == "flat":
        return ExpectedType(first.type, first.memory, exact_ms, True)
    others = tuple(candidate.type for candidate in tried[1:])
    return ExpectedType(first.type, first.memory, exact_ms, False, others)


def _time_exact(rows: int, dimension: int, options: IndexOptions, workdir: Path | None) -> tuple[float, float]:
    """Median times in milliseconds of a query compared with all rows, and with a few rows."""
    sampled = min(rows, rows_to_sample(dimension))
    draw = np.random.default_rng(0)
    with TemporaryDirectory(prefix="llm2comp-plan-", dir=workdir) as folder:
        times = []
        for name, count in (("sample.faiss", sampled), ("few.faiss", min(rows, _FLOOR_ROWS))):
            storage = _random_storage(Path(folder) / name, count, dimension, options.store, draw)
            queries = _unit(draw, _QUERIES, dimension)
            [point] = measure_curve(storage, storage, queries, k=options.targets.k, point_seconds=1.0)
            times.append(point.median_ms)
    return times[0] * rows / sampled, times[1]


def _random_storage(path: Path, rows: int, dimension: int, store: Store, draw: np.random.Generator) -> Storage:
    with StorageWriter(path, dimension, store) as writer:
        for first in range(0, rows, 4096):
            writer.append(_unit(draw, min(4096, rows - first), dimension))
        writer.finish()
    return open_storage(path, rows=rows, dimension=dimension, store=store)


def _unit(draw: np.random.Generator, rows: int, dimension: int) -> NDArray[np.float32]:
    vectors = draw.standard_normal((rows, dimension), dtype=np.float32)
    unit: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def structure_bytes(kind: IndexType, rows: int, dimension: int, store: Store) -> int:
    """Size of the file of the structure: what searching holds in memory beside the stored vectors."""
    memory = memory_bytes(kind, rows=rows, dimension=dimension, store=store)
    return memory - storage_bytes(rows, dimension, store) if kind.family in ("flat", "hnsw") else memory


def row_files_bytes(rows: int, dimension: int, store: Store) -> int:
    """Size of the files of vectors, offsets and ids."""
    return storage_bytes(rows, dimension, store) + (ROW_BYTES + ID_BYTES) * rows
