"""Dynamic batching: what has arrived while the model was at work is its next batch.

There is no timer. A wait for more requests would slow down a lone client and gives nothing under load, where the queue
fills by itself.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Batcher", "QueueFullError"]

Encode = Callable[[Sequence[Sequence[int]]], NDArray[np.float32]]
_FIRST_RATE = 10_000.0  # tokens a second, until the first batch is measured


class QueueFullError(Exception):
    """The queue has no room; `seconds` is the time after which it probably has."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the queue is full for about {seconds:.0f} s")
        self.seconds = seconds


@dataclass(slots=True, eq=False)
class _Job:
    """Texts of one request.

    Attributes:
        texts: Token ids of each text.
        memory: Whether the vectors of memory tokens are wanted too.
        vectors: Vectors of the texts that are encoded.
        future: Receives all vectors, (texts, dimension), or with memory (texts, 1 + k, dimension).
        begun: Number of texts that were put into a batch.
        arrived: When the job arrived, in seconds of `time.perf_counter`.
    """

    texts: Sequence[Sequence[int]]
    memory: bool = False
    future: "Future[NDArray[np.float32]]" = field(default_factory=Future)
    vectors: list[NDArray[np.float32]] = field(default_factory=list)
    begun: int = 0
    arrived: float = field(default_factory=time.perf_counter)


class _Part(NamedTuple):
    """Successive texts of a job, in a batch."""

    job: _Job
    texts: Sequence[Sequence[int]]


class Batcher:
    """One thread that encodes the texts of all requests, as many at once as the token budget allows.

    Requests take turns: of a request with more texts than fit, the rest waits behind the others.

    Args:
        encode: Vectors (texts, dimension) of token ids.
        batch_tokens: Most tokens of a batch; a longer text is encoded alone.
        queue_tokens: Most tokens that wait.
        overhead: Tokens that the model adds to each text.
        batching: Whether requests share batches; otherwise each is encoded by itself.
        encode_memory: Vectors of texts and of their memory tokens, (texts, 1 + k, dimension), for requests that want
            them and those that share a batch with them.
        watch: Receives texts, tokens, seconds of waiting for the oldest of them, and seconds of encoding of each batch.
    """

    def __init__(
        self,
        encode: Encode,
        *,
        batch_tokens: int,
        queue_tokens: int,
        overhead: int = 0,
        batching: bool = True,
        encode_memory: Encode | None = None,
        watch: Callable[[int, int, float, float], None] = lambda texts, tokens, waited, encoded: None,
    ) -> None:
        self._encode, self._watch, self._overhead = encode, watch, overhead
        self._encode_memory = encode_memory
        self._batch_tokens, self._queue_tokens, self._batching = batch_tokens, queue_tokens, batching
        self._jobs: deque[_Job] = deque()
        self._waiting = 0  # tokens
        self._rate = _FIRST_RATE
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="llm2comp-batches", daemon=True)
        self._thread.start()

    @property
    def waiting_tokens(self) -> int:
        """Tokens in the queue."""
        return self._waiting

    def submit(self, texts: Sequence[Sequence[int]], *, memory: bool = False) -> "Future[NDArray[np.float32]]":
        """The vectors (texts, dimension) of token ids, later. Cancelling the future takes its texts from the queue.

        With `memory` they are (texts, 1 + k, dimension): the vector of each text, and those of its memory tokens.

        Raises:
            QueueFullError: Other texts are waiting, and these would be more tokens than may wait.
            ValueError: There are no texts, or their memory is wanted and there is no `encode_memory`.
        """
        if not texts:
            raise ValueError("no texts to encode")
        if memory and self._encode_memory is None:
            raise ValueError("these texts are encoded without memory")
        job = _Job(texts, memory)
        tokens = self._count(texts)
        with self._changed:
            if self._closed:
                raise RuntimeError("the server is shutting down")
            if self._waiting + tokens > self._queue_tokens:
                self._drop_cancelled()
            if self._waiting and self._waiting + tokens > self._queue_tokens:
                raise QueueFullError(max(1.0, self._waiting / self._rate))
            self._jobs.append(job)
            self._waiting += tokens
            self._changed.notify()
        return job.future

    def close(self) -> None:
        """Encodes what is waiting, and ends the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _drop_cancelled(self) -> None:
        for job in [job for job in self._jobs if job.future.cancelled()]:
            self._jobs.remove(job)
            self._waiting -= self._count(job.texts[job.begun :])

    def _count(self, texts: Sequence[Sequence[int]]) -> int:
        return sum(map(len, texts)) + self._overhead * len(texts)

    def _work(self) -> None:
        while parts := self._next_batch():
            texts = [text for part in parts for text in part.texts]
            encode = self._encode_memory if any(part.job.memory for part in parts) else self._encode
            assert encode is not None  # `submit` takes no job with memory then
            start = time.perf_counter()
            try:
                vectors = encode(texts)
            except Exception as error:
                self._fail(parts, error)
                continue
            seconds, tokens = time.perf_counter() - start, self._count(texts)
            self._rate += 0.1 * (tokens / max(seconds, 1e-9) - self._rate)
            self._watch(len(texts), tokens, start - min(part.job.arrived for part in parts), seconds)
            self._deliver(parts, vectors)

    def _next_batch(self) -> list[_Part]:
        """Parts of the jobs that wait, oldest first; empty at the end."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._jobs or self._closed)
                if not self._jobs:
                    return []
                if parts := list(self._take()):
                    return parts

    def _take(self) -> Iterator[_Part]:
        room, unfinished = self._batch_tokens, []
        while self._jobs and room > 0:
            job = self._jobs.popleft()
            rest = job.texts[job.begun :]
            if job.future.cancelled():
                self._waiting -= self._count(rest)
                continue
            number = self._fitting(rest, room, first=room == self._batch_tokens)
            if not number:
                self._jobs.appendleft(job)  # the first of the next batch
                break
            part = _Part(job, rest[:number])
            job.begun += number
            if number < len(rest):
                unfinished.append(job)
            room -= self._count(part.texts)
            self._waiting -= self._count(part.texts)
            yield part
            if not self._batching:
                break
        self._jobs.extend(unfinished)

    def _fitting(self, texts: Sequence[Sequence[int]], room: int, *, first: bool) -> int:
        """Number of texts, from the first one, that have room; at least one in an empty batch."""
        for number, text in enumerate(texts):
            room -= len(text) + self._overhead
            if room < 0:
                return max(number, int(first))
        return len(texts)

    def _deliver(self, parts: Sequence[_Part], vectors: NDArray[np.float32]) -> None:
        start = 0
        for job, texts in parts:
            rows = vectors[start : start + len(texts)]
            job.vectors.append(rows[:, 0] if rows.ndim == 3 and not job.memory else rows)
            start += len(texts)
            if sum(map(len, job.vectors)) == len(job.texts):
                _resolve(job, job.vectors[0] if len(job.vectors) == 1 else np.concatenate(job.vectors))

    def _fail(self, parts: Sequence[_Part], error: Exception) -> None:
        failed = {part.job for part in parts}
        with self._changed:
            for job in failed & set(self._jobs):
                self._jobs.remove(job)
                self._waiting -= self._count(job.texts[job.begun :])
        for job in failed:
            _resolve(job, error)


def _resolve(job: _Job, result: NDArray[np.float32] | Exception) -> None:
    try:
        if isinstance(result, Exception):
            job.future.set_exception(result)
        else:
            job.future.set_result(result)
    except InvalidStateError:
        pass  # cancelled: the client has gone
