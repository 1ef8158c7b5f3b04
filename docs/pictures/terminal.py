"""Draws `docs/search.svg`: two searches as a terminal shows them.

`python docs/pictures/terminal.py INDEX docs/search.svg`, where INDEX is a folder that
`llm2comp index build python-docs: -o INDEX` wrote.
"""

import fcntl
import os
import pty
import re
import struct
import sys
import termios
from html import escape
from pathlib import Path

QUESTIONS = ("How do I parse a date from a string?", "sort by several keys")
"""What is asked: the question of README.md, and one in other words than the documentation's."""

_COLUMNS = 92
_CHARACTER, _LINE, _MARGIN, _BAR = 8.0, 19, 18, 34  # pixels
_FONT = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
_BACKGROUND, _TEXT, _PROMPT, _BEST, _BOLD = "#0d1117", "#c9d1d9", "#7ee787", "#79c0ff", "#ffffff"


def search(index: Path, question: str) -> list[str]:
    """Lines that `llm2comp search` prints for the question on a terminal, the command before them."""
    command = [sys.executable, "-m", "llm2comp", "search", str(index), question, "-k", "3"]
    return [f'$ llm2comp search python.index "{question}" -k 3', *_run_on_terminal(command), ""]


def _run_on_terminal(command: list[str]) -> list[str]:
    """Lines of output, bold words between escape sequences."""
    child, file = pty.fork()
    if not child:
        fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 50, _COLUMNS, 0, 0))
        os.execve(command[0], command, {**os.environ, "TERM": "xterm"})
    output = b""
    while chunk := _read(file):
        output += chunk
    if status := os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        raise SystemExit(f"{' '.join(command)}: status {status}\n{output.decode()}")
    return output.decode().splitlines()


def _read(file: int) -> bytes:
    try:
        return os.read(file, 1 << 16)
    except OSError:  # Linux, at the end
        return b""


def draw(lines: list[str]) -> str:
    """The lines as an SVG of a terminal; prompts and the first line of each answer are coloured."""
    width, height = _COLUMNS * _CHARACTER + 2 * _MARGIN, len(lines) * _LINE + _BAR + _MARGIN
    dots = "".join(
        f'<circle cx="{_MARGIN + 20 * place}" cy="17" r="6" fill="{colour}"/>'
        for place, colour in enumerate(("#ff5f56", "#ffbd2e", "#27c93f"))
    )
    texts = "\n".join(
        f'<text x="{_MARGIN}" y="{_BAR + _LINE * (row + 1)}" fill="{_colour(line)}">{_style(line)}</text>'
        for row, line in enumerate(lines)
        if line
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height}" width="{width:g}" height="{height}" '
        f'font-family="{_FONT}" font-size="13" xml:space="preserve">\n'
        f'<style>text {{ white-space: pre; }}</style>\n<rect width="100%" height="100%" rx="8" fill="{_BACKGROUND}"/>\n'
        f"{dots}\n{texts}\n</svg>\n"
    )


def _style(line: str) -> str:
    """The line as the content of an SVG text."""
    return re.sub("\x1b\\[1m(.*?)\x1b\\[22m", rf'<tspan font-weight="bold" fill="{_BOLD}">\1</tspan>', escape(line))


def _colour(line: str) -> str:
    if line.startswith("$"):
        return _PROMPT
    return _BEST if line[:3].strip().isdigit() else _TEXT


def main() -> None:
    """Searches the index named first, and writes the picture named second."""
    index, picture = Path(sys.argv[1]), Path(sys.argv[2])
    lines = [line for question in QUESTIONS for line in search(index, question)][:-1]
    picture.write_text(draw(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
