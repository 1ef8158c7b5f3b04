"""Passes side by side: the same results in the same order, in threads that take no one else's settings."""

import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

from llm2comp.backbone.pass_threads import MOST_PASSES, passes_at_once, run_passes
from llm2comp.model import LLM2Comp
from tests.threads import torch_threads

SECONDS = 60
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _two_threads() -> Iterator[None]:
    with torch_threads(2):
        yield


def test_as_many_passes_as_threads_up_to_a_limit() -> None:
    counts = {}
    for threads in (1, 2, 8, 64):
        torch.set_num_threads(threads)
        counts[threads] = passes_at_once(CPU)
    assert counts == {1: 1, 2: 2, 8: MOST_PASSES, 64: MOST_PASSES}
    assert passes_at_once(torch.device("cuda", 0)) == 1


def test_passes_meet_and_come_back_in_order() -> None:
    """Each pair of passes waits at a barrier, which passes in turn would never leave."""
    barrier = threading.Barrier(2)
    assert run_passes([lambda number=number: (barrier.wait(SECONDS), number)[1] for number in range(6)], 2) == [
        *range(6)
    ]


def test_passes_divide_the_threads_of_the_caller_and_of_no_one_else() -> None:
    torch.set_num_threads(4)
    threads: list[int] = []
    assert run_passes([torch.get_num_threads] * 6, 2) == [2] * 6
    other = threading.Thread(target=lambda: threads.append(torch.get_num_threads()))
    other.start()
    other.join()
    assert (torch.get_num_threads(), threads) == (4, [4])


@pytest.mark.parametrize("inference", [False, True])
def test_passes_have_the_modes_of_the_caller(inference: bool) -> None:
    def modes() -> tuple[bool, bool, bool, torch.dtype]:
        kind = torch.get_autocast_dtype("cpu")
        return torch.is_inference_mode_enabled(), torch.is_grad_enabled(), torch.is_autocast_enabled("cpu"), kind

    with torch.inference_mode(inference), torch.no_grad(), torch.autocast("cpu", torch.float16):
        assert run_passes([modes] * 4, 2) == [modes()] * 4


def test_the_first_failure_is_raised_and_later_passes_still_run() -> None:
    def fail() -> None:
        raise ValueError("third text")

    with pytest.raises(ValueError, match="third text"):
        run_passes([lambda: None, lambda: None, fail, *[lambda: None] * 20], 2)
    assert run_passes([lambda: 1, lambda: 2], 2) == [1, 2]


def test_vectors_are_those_of_one_thread(make_model: Callable[..., LLM2Comp]) -> None:
    model = make_model()
    texts = [f"text {row} " + "word " * (row % 40) for row in range(300)]
    together = model.encode(texts)
    again = model.encode(texts)
    torch.set_num_threads(1)
    np.testing.assert_allclose(together, model.encode(texts), atol=1e-6)
    np.testing.assert_array_equal(again, together)


def test_several_threads_share_the_pool(make_model: Callable[..., LLM2Comp]) -> None:
    model = make_model()
    texts = [f"text {row} " + "word " * (row % 40) for row in range(200)]
    expected = model.encode(texts)
    answers: list[np.ndarray] = []
    threads = [threading.Thread(target=lambda: answers.append(model.encode(texts))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    assert len(answers) == 4
    for answer in answers:
        np.testing.assert_allclose(answer, expected, atol=1e-6)
