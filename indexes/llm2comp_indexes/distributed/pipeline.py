"""The pipeline of Ray Data: blocks are read by tasks, handed to actors as they have room, and told of one by one."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

from llm2comp.corpus.sources import Source
from llm2comp.errors import ClusterError, LLM2CompError, one_line
from llm2comp_indexes.distributed.actor import BlockEncoder
from llm2comp_indexes.distributed.blocks import TOKEN_BYTES, Reading, ReadTask, read_rows_as_blocks, read_task
from llm2comp_indexes.distributed.capacity import ActorPlan
from llm2comp_indexes.distributed.job import Job
from llm2comp_indexes.distributed.parts import PartFacts

__all__ = ["READ_CPUS", "Record", "blocks_of_corpora", "blocks_of_dataset", "encode_blocks", "find_cause"]

READ_CPUS = 0.2
"""Share of a CPU that a task holds which reads a corpus."""


class Record(NamedTuple):
    """What an actor tells of a block.

    Attributes:
        key: Name of its part.
        facts: Facts of its part.
        ids: Ids that the corpus gave to its documents.
        encoded: Number of its rows that were encoded now; 0: an earlier run had made the part.
        seconds: Seconds that their encoding took.
        process: Id of the actor's process.
        time: When it was done, in seconds since 1970.
    """

    key: str
    facts: PartFacts
    ids: list[str]
    encoded: int
    seconds: float
    process: int
    time: float


def blocks_of_corpora(tasks: Sequence[ReadTask], reading: Reading, tokens: int) -> Any:
    """A dataset of the blocks of all tasks."""
    import ray.data

    context = ray.data.DataContext.get_current().copy()
    with ray.data.DataContext.current(context):
        _set(context, tokens)
        numbers: Any = ray.data.from_items([{"task": task.number} for task in tasks], override_num_blocks=len(tasks))
        return numbers.map_batches(
            _read,
            batch_size=1,
            batch_format="pyarrow",
            fn_kwargs={"tasks": tasks, "reading": reading, "tokens": tokens},
            num_cpus=READ_CPUS,
        )


def blocks_of_dataset(dataset: Any, source: Source, on_error: Literal["raise", "skip"], tokens: int) -> Any:
    """A dataset of the blocks of the rows of another."""
    return dataset.map_batches(
        _to_blocks,
        batch_size=None,
        batch_format="pyarrow",
        fn_kwargs={"source": source, "on_error": on_error, "tokens": tokens},
    )


def encode_blocks(blocks: Any, job: Job, plan: ActorPlan, block_tokens: int) -> Iterator[Record]:
    """The record of each block, once its part is written.

    An actor that ends is begun again, and so is its block; Ray gives up after 30 minutes without any block.

    Args:
        blocks: A dataset of blocks.
        job: What the actors do.
        plan: How many there are, and what each of them holds.
        block_tokens: Number of tokens in a block.

    Raises:
        LLM2CompError: Reading or encoding failed.
        ClusterError: The cluster did.
    """
    from ray.data import ActorPoolStrategy

    resources: dict[str, Any] = {"num_cpus": plan.cpus, "memory": plan.memory}
    if plan.gpus:
        resources["num_gpus"] = plan.gpus
    with _settings(blocks.context, block_tokens), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of fewer blocks than actors, which a small corpus has
        records = blocks.map_batches(
            BlockEncoder,
            fn_constructor_kwargs={"job": job, "threads": plan.threads},
            batch_size=1,
            batch_format="pyarrow",
            compute=ActorPoolStrategy(size=plan.actors, max_tasks_in_flight_per_actor=2),
            **resources,
        )
        try:
            for batch in records.iter_batches(batch_size=None, prefetch_batches=0, batch_format="pyarrow"):
                for row in batch.to_pylist():
                    yield Record(**{**row, "facts": PartFacts.from_json(row["facts"])})
        except Exception as error:  # those of Ray have many classes
            raise find_cause(error) from error


def _read(batch: Any, tasks: Sequence[ReadTask], reading: Reading, tokens: int) -> Iterator[Any]:
    import pyarrow as pa

    for number in batch.column("task").to_pylist():
        for block in read_task(tasks[number], reading, tokens):
            yield pa.table(block.to_row())


def _to_blocks(batch: Any, source: Source, on_error: Literal["raise", "skip"], tokens: int) -> Iterator[Any]:
    import pyarrow as pa

    for block in read_rows_as_blocks(batch, source, on_error, tokens):
        yield pa.table(block.to_row())


@contextmanager
def _settings(context: Any, tokens: int) -> Iterator[None]:
    """The context of a dataset, which may be the user's, with our settings within the block."""
    before = {name: getattr(context, name) for name in _settings_of(tokens)}
    _set(context, tokens)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(context, name, value)


def _settings_of(tokens: int) -> dict[str, Any]:
    return {
        "target_max_block_size": tokens * TOKEN_BYTES,  # one of our blocks, so that few are under way
        "target_min_block_size": 1,
        "enable_progress_bars": False,
        "print_on_execution_start": False,
        "raise_original_map_exception": True,
    }


def _set(context: Any, tokens: int) -> None:
    for name, value in _settings_of(tokens).items():
        setattr(context, name, value)


def find_cause(error: BaseException) -> LLM2CompError:
    """The error of ours that ended a task, or one with what Ray says."""
    seen, current = list[BaseException](), error
    while current not in seen:
        seen.append(current)
        for one in (
            getattr(current, "cause", None),
            current,
        ):  # an error of Ray holds the task's, and may be of its class
            if isinstance(one, LLM2CompError):
                return type(one)(str(one).partition("\n")[0])  # without the lines that Ray Data puts behind it
        following = getattr(current, "cause", None) or current.__cause__
        current = following if isinstance(following, BaseException) else current
    last = [line.strip() for line in str(error).splitlines() if line.strip()]
    message = last[-1] if last else one_line(error)
    return ClusterError(
        f"the cluster stopped with {type(error).__name__}: {message[:300]}; what was encoded is kept: run this again "
        "to go on"
    )
