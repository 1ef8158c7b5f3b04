"""The queue of a model: turns, the token budget, limits, failures."""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import CancelledError

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="needs the extra serve")

from llm2comp_serve.batching import Batcher, QueueFullError


class _Model:
    """Encodes a text [number, …] as [number]; waits at each batch until it is let go; remembers the batches."""

    def __init__(self) -> None:
        self.batches: list[list[list[int]]] = []
        self.entered, self.go = threading.Semaphore(0), threading.Semaphore(0)

    def __call__(self, texts: Sequence[Sequence[int]]) -> np.ndarray:
        self.batches.append([list(text) for text in texts])
        self.entered.release()
        assert self.go.acquire(timeout=30)
        if any(text[0] < 0 for text in texts):
            raise RuntimeError("a negative number")
        return np.array([[text[0]] for text in texts], dtype=np.float32)

    def free(self) -> None:
        for _ in range(1000):
            self.go.release()


@pytest.fixture
def model() -> _Model:
    return _Model()


def _texts(*numbers: int, length: int = 2) -> list[list[int]]:
    return [[number] * length for number in numbers]


def test_what_queued_while_the_model_worked_is_the_next_batch(model: _Model) -> None:
    batcher = Batcher(model, batch_tokens=100, queue_tokens=1000)
    first = batcher.submit(_texts(1))
    model.entered.acquire()
    others = [batcher.submit(_texts(2, 3)), batcher.submit(_texts(4))]
    model.free()
    assert first.result(30).tolist() == [[1]]
    assert [other.result(30).tolist() for other in others] == [[[2], [3]], [[4]]]
    assert model.batches == [_texts(1), _texts(2, 3, 4)]
    batcher.close()


def test_no_batch_has_more_tokens_than_the_budget(model: _Model) -> None:
    model.free()
    batcher = Batcher(model, batch_tokens=10, queue_tokens=10_000, overhead=1)
    vectors = batcher.submit(_texts(*range(1, 20), length=3)).result(30)
    assert vectors[:, 0].tolist() == list(range(1, 20))
    assert max(sum(len(text) + 1 for text in batch) for batch in model.batches) <= 10
    assert len(model.batches) == 10
    batcher.close()


def test_a_text_longer_than_the_budget_is_encoded_alone(model: _Model) -> None:
    model.free()
    batcher = Batcher(model, batch_tokens=10, queue_tokens=10_000)
    texts = [*_texts(1), *_texts(2, length=50), *_texts(3)]
    assert batcher.submit(texts).result(30)[:, 0].tolist() == [1, 2, 3]
    assert [[text[0] for text in batch] for batch in model.batches] == [[1], [2], [3]]
    batcher.close()


def test_the_rest_of_a_long_request_waits_behind_the_others(model: _Model) -> None:
    batcher = Batcher(model, batch_tokens=4, queue_tokens=10_000)
    blocker = batcher.submit(_texts(99))
    model.entered.acquire()
    long = batcher.submit(_texts(*range(10)))
    short = batcher.submit(_texts(50))
    model.free()
    assert long.result(30)[:, 0].tolist() == list(range(10))
    assert blocker.done()
    assert short.done()
    order = [text[0] for batch in model.batches for text in batch]
    assert order.index(50) <= 4, order  # after one batch of the long request
    batcher.close()


def test_a_request_that_is_cancelled_is_never_encoded(model: _Model) -> None:
    batcher = Batcher(model, batch_tokens=4, queue_tokens=100)
    first = batcher.submit(_texts(1))
    model.entered.acquire()
    gone, stays = batcher.submit(_texts(2, 3, 4, 5)), batcher.submit(_texts(6))
    assert gone.cancel()
    model.free()
    assert stays.result(30).tolist() == [[6]]
    assert first.result(30).tolist() == [[1]]
    assert model.batches == [_texts(1), _texts(6)]
    with pytest.raises(CancelledError):
        gone.result(1)
    assert batcher.waiting_tokens == 0
    batcher.close()


def test_a_full_queue_refuses_and_names_the_seconds(model: _Model) -> None:
    batcher = Batcher(model, batch_tokens=100, queue_tokens=10)
    batcher.submit(_texts(1))
    model.entered.acquire()
    batcher.submit(_texts(2, 3, 4))
    with pytest.raises(QueueFullError) as refused:
        batcher.submit(_texts(5, 6, 7))
    assert refused.value.seconds >= 1
    model.free()
    batcher.close()


def test_what_cancelled_requests_held_is_free_at_once(model: _Model) -> None:
    batcher = Batcher(model, batch_tokens=100, queue_tokens=10)
    batcher.submit(_texts(1))
    model.entered.acquire()
    gone = [batcher.submit(_texts(2, 3)), batcher.submit(_texts(4, 5))]
    for future in gone:
        future.cancel()
    stays = batcher.submit(_texts(6, 7, 8))
    model.free()
    assert stays.result(30)[:, 0].tolist() == [6, 7, 8]
    batcher.close()


def test_an_empty_queue_takes_a_request_of_any_size(model: _Model) -> None:
    model.free()
    batcher = Batcher(model, batch_tokens=100, queue_tokens=10)
    assert len(batcher.submit(_texts(*range(1, 100))).result(30)) == 99
    batcher.close()


def test_a_failed_batch_fails_its_requests_only(model: _Model) -> None:
    batcher = Batcher(model, batch_tokens=4, queue_tokens=100)
    first = batcher.submit(_texts(1))
    model.entered.acquire()
    failing, fine = batcher.submit(_texts(-1, 2, 3, 4)), batcher.submit(_texts(5))
    model.free()
    with pytest.raises(RuntimeError, match="a negative number"):
        failing.result(30)
    assert fine.result(30).tolist() == [[5]]
    assert first.result(30).tolist() == [[1]]
    assert batcher.submit(_texts(6)).result(30).tolist() == [[6]]
    assert {text[0] for batch in model.batches for text in batch} == {1, -1, 2, 5, 6}  # its rest is not encoded
    assert batcher.waiting_tokens == 0
    batcher.close()


def test_no_texts_are_refused(model: _Model) -> None:
    batcher = Batcher(model, batch_tokens=4, queue_tokens=100)
    with pytest.raises(ValueError, match="no texts"):
        batcher.submit([])
    batcher.close()


def test_closing_encodes_what_waits_and_takes_no_more(model: _Model) -> None:
    batcher = Batcher(model, batch_tokens=4, queue_tokens=100)
    futures = [batcher.submit(_texts(number)) for number in range(5)]
    closing = threading.Thread(target=batcher.close)
    closing.start()
    time.sleep(0.05)
    model.free()
    closing.join(30)
    assert not closing.is_alive()
    assert [future.result(1).tolist() for future in futures] == [[[number]] for number in range(5)]
    with pytest.raises(RuntimeError, match="shutting down"):
        batcher.submit(_texts(1))


def test_hundreds_of_threads_get_their_own_vectors(model: _Model) -> None:
    model.free()
    batcher = Batcher(model, batch_tokens=16, queue_tokens=100_000)
    wrong: list[int] = []

    def client(number: int) -> None:
        for turn in range(3):
            numbers = [100 * number + turn, 100 * number + 50 + turn]
            if batcher.submit(_texts(*numbers)).result(60)[:, 0].tolist() != numbers:
                wrong.append(number)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(1, 101)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong
    batcher.close()
