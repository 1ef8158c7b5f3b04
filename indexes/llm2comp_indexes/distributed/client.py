"""A run that a process outside of the cluster starts through a Ray client: it goes on within the cluster."""

from collections.abc import Callable
from typing import Any

from llm2comp_indexes.distributed.cluster import connected
from llm2comp_indexes.distributed.pipeline import find_cause
from llm2comp_indexes.distributed.report import ClusterReport

__all__ = ["encode_through_client"]


def encode_through_client(
    encode: Callable[..., ClusterReport],
    address: str,
    keywords: dict[str, Any],
    on_skip: Callable[[str], None],
) -> ClusterReport:
    """Report of a run on a host of the cluster, where the corpus, the model and the output are looked for.

    Args:
        encode: The function that runs there.
        address: `ray://HOST:PORT`.
        keywords: Its arguments.
        on_skip: Called with the message of each skipped row, once the run is done.

    Raises:
        LLM2CompError: What the run raised, or the cluster cannot be reached.
    """
    with connected(address) as ray:
        try:
            report, messages = ray.get(ray.remote(num_cpus=0, max_retries=0)(_run).remote(encode, keywords))
        except Exception as error:  # those of Ray have many classes
            raise find_cause(error) from error
    for message in messages:
        on_skip(message)
    made: ClusterReport = report
    return made


def _run(encode: Callable[..., ClusterReport], keywords: dict[str, Any]) -> tuple[ClusterReport, list[str]]:
    messages = list[str]()
    return encode(**keywords, on_skip=messages.append), messages
