"""Progress of a command on stderr, with rate and time left: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from collections import deque
from contextlib import ExitStack
from typing import Self

__all__ = ["Progress", "note"]

_WINDOW_SECONDS = 60.0
_BAR, _PLAIN = "{l_bar}{bar}{r_bar}", "{desc} [{elapsed}]"


def note(message: str) -> None:
    """Prints the line on stderr, above the bar if there is one."""
    from tqdm import tqdm

    tqdm.write(message, file=sys.stderr)


class Progress:
    """Shows the counts of one phase after another; without a terminal, nothing in the first seconds."""

    _SECONDS_BETWEEN_LINES = 10.0
    _SILENT_SECONDS = 3.0

    def __init__(self, what: str, *, total: int | None = None, about: int | None = None) -> None:
        """Starts the first phase, with its total or an estimate of it (`about`), if known."""
        from tqdm import tqdm

        self._totals: dict[str, tuple[int, str]] = {}
        self._seen: deque[tuple[float, int]] = deque()
        self._last = 0.0
        if (known := about if total is None else total) is not None:
            self._totals[what] = known, "about " if total is None else ""
        self._bar = tqdm(disable=None, leave=False, unit="", desc=f"{what} …", bar_format=_PLAIN)
        self._created = time.monotonic()
        self._opened = ExitStack()
        self._start(what)

    def __enter__(self) -> Self:
        if not self._bar.disable:
            from tqdm.contrib.logging import logging_redirect_tqdm

            self._opened.enter_context(logging_redirect_tqdm())
        return self

    def __exit__(self, *error: object) -> None:
        self._opened.close()
        self._bar.close()

    def phase(self, name: str, count: int) -> None:
        """Shows the count of a phase; the number of rows written becomes the total of the rows in the structure."""
        from llm2comp_indexes.progress import Phase

        if name == Phase.ROWS_WRITTEN:
            self._totals[Phase.STRUCTURE_ROWS] = count, ""
            return
        if name != self._what:
            self._start(name)
            if self._bar.disable and time.monotonic() - self._created >= self._SILENT_SECONDS:
                print(f"{name} …", file=sys.stderr, flush=True)
        self.update(count)

    def update(self, count: int) -> None:
        """Shows the count so far."""
        now = time.monotonic()
        self._seen.append((now, count))
        while now - self._seen[0][0] > _WINDOW_SECONDS and len(self._seen) > 2:
            self._seen.popleft()
        if not self._bar.disable:
            self._draw(count)
        elif count and now - self._last >= self._SECONDS_BETWEEN_LINES:
            self._last = now
            print(self._line(count, now), file=sys.stderr, flush=True)

    def _start(self, what: str) -> None:
        self._what = what
        self._started = self._last = time.monotonic()
        self._seen = deque([(self._started, 0)])
        if not self._bar.disable:
            self._bar.bar_format = _PLAIN
            self._bar.set_description_str(f"{what} …", refresh=False)
            self._bar.reset()

    def _draw(self, count: int) -> None:
        if count and self._bar.bar_format == _PLAIN:
            self._bar.bar_format = _BAR
            self._bar.set_description(self._what, refresh=False)
        total = self._totals.get(self._what, (0, ""))[0]
        self._bar.total = total if total >= count else None  # an estimate that was too low
        self._bar.update(count - self._bar.n)

    def _line(self, count: int, now: float) -> str:
        (start, first), (end, last) = self._seen[0], self._seen[-1]
        rate = (last - first) / (end - start) if end > start else 0.0
        total, about = self._totals.get(self._what, (0, ""))
        known = total >= count
        notes = [f"{_format_rate(rate)} a second"] if rate else []
        notes += [f"about {_format_duration((total - count) / rate)} left"] if rate and known and total > count else []
        of = f" of {about}{total:,}" if known else ""
        what = self._what if of or count != 1 else self._what.removesuffix("s")
        line = f"{count:,}{of} {what} after {_format_duration(now - self._started)}"
        return f"{line} ({', '.join(notes)})" if notes else line


def _format_rate(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"


def _format_duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
