"""Threads encode at once over one copy of the weights; passes that change the model run alone."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from llm2comp.backbone.adapter import AdapterSettings
from llm2comp.backbone.attention import Packing
from llm2comp.backbone.backbone import Backbone
from llm2comp.backbone.shared_lock import SharedLock
from llm2comp.model import LLM2Comp
from tests.families import build, some_texts
from tests.threads import torch_threads

LENGTHS = (5, 17, 9, 4)
TAIL = 4
TAIL_ROWS = Packing.of(LENGTHS, causal=False, device=torch.device("cpu"), tail=TAIL).tail_rows()
SECONDS = 60


@pytest.fixture(autouse=True)
def _one_core_each() -> Iterator[None]:
    """One PyTorch thread per pass, so that passes do not compete for cores."""
    with torch_threads(1):
        yield


def embedded(backbone: Backbone) -> Tensor:
    with torch.no_grad():
        return backbone.embed(torch.cat(some_texts(*LENGTHS)))


def encode(backbone: Backbone, states: Tensor) -> Tensor:
    with torch.no_grad():  # a setting of the thread
        return backbone.encode(states, LENGTHS, tail=TAIL)


def read(backbone: Backbone, states: Tensor) -> Tensor:
    with torch.no_grad():
        return backbone.read(states, LENGTHS)


def in_every_pass(backbone: Backbone, work: Callable[[], Any]) -> None:
    """Calls `work` in each pass of the backbone, before the first layer."""
    layer = backbone.language_model.model.layers[0]
    layer.register_forward_pre_hook(lambda module, args: (work(), None)[1])


@pytest.mark.parametrize("adapter", [False, True])
def test_threads_are_inside_a_pass_at_once(adapter: bool) -> None:
    """They meet at a barrier there; a lock held through a pass would deadlock."""
    backbone = Backbone(build("llama"))
    if adapter:
        backbone.add_adapter(AdapterSettings(rank=4))
    states = embedded(backbone)
    expected = encode(backbone, states)
    meeting = threading.Barrier(3)
    in_every_pass(backbone, lambda: meeting.wait(SECONDS))
    with ThreadPoolExecutor(3) as threads:
        passes = [threads.submit(encode, backbone, states) for _ in range(3)]
        for one in passes:
            torch.testing.assert_close(one.result()[TAIL_ROWS], expected[TAIL_ROWS], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2", "phi"])
def test_threads_with_different_texts_get_the_states_they_get_alone(family: str) -> None:
    backbone = Backbone(build(family))
    lengths = [(3, 9), (24, 5, 17), (4,), (12, 12, 30, 7)]
    with torch.no_grad():
        inputs = [backbone.embed(torch.cat(some_texts(*sizes))) for sizes in lengths]
        alone = [backbone.encode(states, sizes, tail=3) for states, sizes in zip(inputs, lengths, strict=True)]

    def differing(number: int) -> int:
        with torch.no_grad():
            results = [backbone.encode(inputs[number], lengths[number], tail=3) for _ in range(20)]
        return sum(not torch.equal(states, alone[number]) for states in results)

    with ThreadPoolExecutor(len(lengths)) as threads:
        assert list(threads.map(differing, range(len(lengths)))) == [0] * len(lengths)


def test_a_model_encodes_in_threads_as_alone(make_model: Callable[..., LLM2Comp]) -> None:
    model = make_model()
    batches = [[f"text {number} of thread {thread}" * (1 + number) for number in range(5)] for thread in range(4)]
    alone = [model.encode(texts) for texts in batches]
    with ThreadPoolExecutor(len(batches)) as threads:
        for vectors, expected in zip(threads.map(model.encode, batches), alone, strict=True):
            np.testing.assert_allclose(vectors, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("first", "second"), [(encode, read), (read, encode), (read, read)])
def test_reading_and_encoding_exclude_each_other(
    first: Callable[[Backbone, Tensor], Tensor], second: Callable[[Backbone, Tensor], Tensor]
) -> None:
    backbone = Backbone(build("llama"))
    backbone.add_adapter(AdapterSettings(rank=4))
    states = embedded(backbone)
    entered, leave, order = threading.Event(), threading.Event(), list[str]()

    def work() -> None:
        order.append(threading.current_thread().name)
        if len(order) == 1:
            entered.set()
            assert leave.wait(SECONDS)
            order.append("the first pass went on")

    in_every_pass(backbone, work)
    threads = [
        threading.Thread(target=run, args=(backbone, states), name=name)
        for run, name in ((first, "first"), (second, "second"))
    ]
    threads[0].start()
    assert entered.wait(SECONDS)
    threads[1].start()
    threads[1].join(0.2)
    assert order == ["first"]
    leave.set()
    for thread in threads:
        thread.join(SECONDS)
    assert order == ["first", "the first pass went on", "second"]


@pytest.mark.parametrize(
    "changes", [{}, {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}]
)
def test_passes_that_change_the_model_run_one_at_a_time(changes: dict[str, Any]) -> None:
    """Padded passes, and passes with a rotary embedding that stores the longest length."""
    backbone = Backbone(build("llama", **changes), "packed" if changes else "padded")
    states = embedded(backbone)
    inside, most = [0], [0]

    def count() -> None:
        inside[0] += 1
        most[0] = max(most[0], inside[0])

    in_every_pass(backbone, count)
    backbone.language_model.model.norm.register_forward_hook(lambda *_: inside.__setitem__(0, inside[0] - 1))
    with ThreadPoolExecutor(3) as threads:
        list(threads.map(lambda _: encode(backbone, states), range(12)))
    assert most == [1]


def test_who_waits_to_be_alone_goes_before_those_that_come_later() -> None:
    lock, order = SharedLock(), list[str]()
    shares, leave = threading.Event(), threading.Event()

    def share(name: str) -> None:
        with lock.together():
            order.append(name)
            shares.set()
            assert leave.wait(SECONDS)

    def alone() -> None:
        with lock.alone():
            order.append("alone")

    def waits() -> bool:
        return lock._waiting == 1

    early, single, late = (
        threading.Thread(target=share, args=("early",)),
        threading.Thread(target=alone),
        threading.Thread(target=share, args=("late",)),
    )
    early.start()
    assert shares.wait(SECONDS)
    single.start()
    with lock._changed:
        assert lock._changed.wait_for(waits, SECONDS)
    late.start()
    leave.set()
    for thread in (early, single, late):
        thread.join(SECONDS)
    assert order == ["early", "alone", "late"]
