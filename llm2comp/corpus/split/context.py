"""What is put before the text of a chunk for encoding: the title of its document and the headings above it."""

from collections.abc import Sequence
from functools import lru_cache

from llm2comp.corpus.split.tokens import Tokens

__all__ = ["Context"]

_SHARE = 4
_REMEMBERED = 4096


class Context:
    """Makes the lines before a chunk, of at most a quarter of the budget.

    Args:
        tokens: Counts tokens.
        limit: Maximum number of tokens of a chunk, with its context and special tokens.
    """

    def __init__(self, tokens: Tokens, limit: int) -> None:
        self._tokens, self._limit = tokens, limit // _SHARE
        self._fit = lru_cache(_REMEMBERED)(self._make)

    def text(self, title: str, headings: Sequence[str], content: str) -> str:
        """The text that is encoded: title, line break, path of headings, line break, content.

        Headings that the content begins with, and one that is the title, are left out. What does not fit a quarter of
        the budget is shortened: the outermost headings are left out, then title and heading are cut at words.
        """
        before, _ = self.before(title, headings, content)
        return f"{before}\n{content}" if before else content

    def before(self, title: str, headings: Sequence[str], content: str) -> tuple[str, int]:
        """The lines before the content, without the line break at their end, and their number of tokens with it."""
        shown = _headings_at_beginning(content, len(headings))
        path = tuple(heading for heading in headings if heading != title and heading not in shown)
        return self._fit("" if title in shown else title, path)

    def _make(self, title: str, path: tuple[str, ...]) -> tuple[str, int]:
        lines = self._shorten(title, path)
        return lines, self._count(f"{lines}\n") if lines else 0

    def _shorten(self, title: str, path: tuple[str, ...]) -> str:
        for first in range(max(1, len(path))):
            lines = _join(title, path[first:])
            if not lines or self._count(f"{lines}\n") <= self._limit:
                return lines
        room = self._limit - 1  # for the line break at the end
        heading = self._cut(path[-1], room // 2 if title else room) if path else ""
        left = room - (self._count(f"{heading}\n") if heading else 0)
        return _join(self._cut(title, left), (heading,) if heading else ())

    def _count(self, text: str) -> int:
        return self._tokens.counts([text])[0] - self._tokens.special if text else 0

    def _cut(self, text: str, limit: int) -> str:
        """The first words of the text, of at most that number of tokens."""
        words = text.split()[: max(0, limit)]
        while words and self._count(" ".join(words)) > limit:
            words.pop()
        return " ".join(words)


def _join(title: str, path: Sequence[str]) -> str:
    return "\n".join(filter(None, [title, " > ".join(path)]))


def _headings_at_beginning(content: str, most: int) -> set[str]:
    """Headings in Markdown that the content begins with."""
    shown = set[str]()
    for line in content.split("\n", 2 * most + 1)[: 2 * most + 1]:
        if not line.strip():
            continue
        if not line.startswith("#") or len(shown) == most:
            break
        shown.add(line.strip().strip("#").strip())
    return shown
