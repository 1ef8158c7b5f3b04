"""From the threads of the models to the event loop: results that are there at once wake it once."""

import asyncio
import threading
from concurrent.futures import Future
from typing import Any

__all__ = ["Handover"]


class Handover:
    """Tells waiters on an event loop that futures of other threads are done.

    A batch finishes the futures of many requests. If each woke the loop, as with `asyncio.wrap_future`, the loop would
    answer the first while the thread waits for the interpreter to finish the others, and the model stood still.

    Args:
        loop: The event loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._lock = threading.Lock()
        self._arrived: list[asyncio.Future[None]] = []

    def when_done(self, future: "Future[Any]") -> "asyncio.Future[None]":
        """A future of the loop that is done once the given one is."""
        waiter: asyncio.Future[None] = self.loop.create_future()
        future.add_done_callback(lambda _: self._arrive(waiter))
        return waiter

    def _arrive(self, waiter: "asyncio.Future[None]") -> None:
        with self._lock:
            self._arrived.append(waiter)
            is_first = len(self._arrived) == 1
        if is_first and not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        with self._lock:
            arrived, self._arrived = self._arrived, []
        for waiter in arrived:
            if not waiter.done():
                waiter.set_result(None)
