"""What a user reads when a task or the cluster fails: our own error, or one line of Ray's."""

import pytest

from llm2comp.errors import ClusterError, CorpusError
from llm2comp_indexes.distributed.pipeline import find_cause


class _Wrapped(Exception):
    """As Ray wraps the error of a task."""

    def __init__(self, cause: BaseException, text: str = "") -> None:
        super().__init__(text)
        self.cause = cause


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_our_error_is_found_within_those_of_ray(depth: int) -> None:
    error: BaseException = CorpusError("corpus.jsonl:3: not JSON\nFailed to apply UDF transform after 1/1 attempts")
    for _ in range(depth):
        error = _Wrapped(error)
    cause = find_cause(error)
    assert (type(cause), str(cause)) == (CorpusError, "corpus.jsonl:3: not JSON")


def test_an_error_that_is_of_both_classes_gives_ours() -> None:
    class Both(_Wrapped, CorpusError):
        """As Ray makes an error that can be caught as that of the task."""

    ours = CorpusError("corpus.jsonl:3: not JSON")
    assert type(find_cause(Both(ours, "a long traceback"))) is CorpusError


def test_other_errors_become_one_line() -> None:
    error = RuntimeError("ray::MapWorker()\n  File x\nValueError: the last line\n")
    cause = find_cause(error)
    assert isinstance(cause, ClusterError)
    assert str(cause) == (
        "the cluster stopped with RuntimeError: ValueError: the last line; what was encoded is kept: run this again to "
        "go on"
    )
