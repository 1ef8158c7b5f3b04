"""Pairs derived from descriptions of Debian packages, in the Translation-en files that apt downloads."""

import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from llm2comp.corpus.documents import Document
from llm2comp.corpus.read import open_text
from llm2comp.errors import CorpusError
from llm2comp.training.pairs.articles import rest_pairs
from llm2comp.training.pairs.sentences import cut_words, english, letters, roughen
from llm2comp.training.pairs.settings import Pair, PairSettings

__all__ = ["package_pairs"]

_SHORTEST = 15
"""Smallest number of words of a description that is used."""
_TEMPLATE_WORDS = 5
_TEMPLATE_TIMES = 15
"""Number of distinct paragraphs with equal first words from which they are taken for boilerplate."""
_FIELD = re.compile(r"([A-Za-z][\w-]*):\s*(.*)")
_BULLET = re.compile(r"(?:[*+•·-]|o(?=\s)|\d+[.)])\s+")
_CREDIT = re.compile(r"(?:home\s?page|web\s?site|url|(?:upstream )?authors?|copyright)\s?:", re.I)
_LAST_PART = re.compile(r"\s+(?:-{1,2}|–|—)\s+([^()]+)$|\s*\(([^()]+)\)$|,\s+([^(),]+)$")
_PLACEHOLDER = re.compile(
    r"\b(?:transitional|dummy|empty|meta-?\s?package|debug(?:ging)? (?:symbols|files|info\w*)|cross-?compil\w+)\b", re.I
)


@dataclass(frozen=True, slots=True)
class _Package:
    name: str
    synopsis: str
    paragraphs: list[str]


def package_pairs(paths: Iterable[str], settings: PairSettings) -> Iterator[Pair]:
    """Pairs of the packages of Translation-en files: the synopsis asks for the description, a sentence for the rest.

    Packages of one source share much of their text. Therefore each paragraph, and each synopsis without its last part
    (`- development files`), is used once, by the package with the shortest name; paragraphs that begin with the same
    words as many others are left out, and so are transitional packages, metapackages and debug symbols. All packages
    are read into memory before the first pair, about 100 MB for Debian's main section.
    """
    packages = [package for path in paths for package in _read_packages(path) if not _is_placeholder(package)]
    for package in _unrepeated(packages):
        yield from _pairs(package, settings)


def _pairs(package: _Package, settings: PairSettings) -> Iterator[Pair]:
    rng = random.Random(f"{settings.seed} {package.name}")
    if settings.limit("synopsis-description") and len(package.synopsis.split()) >= settings.query_words[0]:
        query = roughen(
            package.synopsis,
            rng,
            lowercase=settings.lowercase,
            unpunctuated=settings.unpunctuated,
            drop_word=settings.drop_word,
        )
        passage = cut_words("\n".join(package.paragraphs), rng.randint(*settings.passage_words))
        title = f"{package.name}\n" if rng.random() < settings.titled else ""
        yield Pair("synopsis-description", cut_words(query, settings.query_words[1]), f"{title}{passage}", package.name)
    prose = " ".join(text for text in package.paragraphs if text[-1] in ".!?" and "\n" not in text)
    limit = settings.limit("part-description")
    yield from rest_pairs("part-description", Document(package.name, package.name, prose), settings, limit)


def _is_placeholder(package: _Package) -> bool:
    return not package.paragraphs or bool(_PLACEHOLDER.search(f"{package.synopsis}\n{package.paragraphs[0]}"))


def _unrepeated(packages: list[_Package]) -> Iterator[_Package]:
    """Packages without what one with a shorter name has, and without those of which too little is left."""
    distinct = {_key(text): text for package in packages for text in package.paragraphs}
    openings = Counter(map(_opening, distinct.values()))
    used: set[str] = set()
    for package in sorted(packages, key=lambda package: (len(package.name), package.name)):
        synopsis = _without_part(package.synopsis)
        paragraphs = [
            text for text in package.paragraphs if openings[_opening(text)] < _TEMPLATE_TIMES and _key(text) not in used
        ]
        if len(" ".join(paragraphs).split()) >= _SHORTEST and f"synopsis {_key(synopsis)}" not in used:
            used.update(map(_key, paragraphs), [f"synopsis {_key(synopsis)}"])
            yield _Package(package.name, synopsis, paragraphs)


def _key(text: str) -> str:
    """The letters of a text: versions of a package differ in digits only."""
    return letters(re.sub(r"\d+", "", text))


def _opening(paragraph: str) -> str:
    return " ".join(paragraph.split(maxsplit=_TEMPLATE_WORDS)[:_TEMPLATE_WORDS])


def _without_part(synopsis: str) -> str:
    """A synopsis without the part of a source that the package is: `Financial library - development files`."""
    match = _LAST_PART.search(synopsis)
    words = letters(match[0]).split() if match else []
    if match and match.start() and english().package_parts.issuperset(words):
        return _without_part(synopsis[: match.start()])
    return synopsis


def _read_packages(path: str) -> Iterator[_Package]:
    if path.endswith(".lz4"):
        raise CorpusError(f"{path}: unpack it first: /usr/lib/apt/apt-helper cat-file {path} > Translation-en")
    empty = True
    for fields in _read_records(path):
        synopsis, *lines = fields.get("Description-en", [""])
        if synopsis and "Package" in fields:
            empty = False
            yield _Package(fields["Package"][0], synopsis, _join_lines(lines))
    if empty:
        raise CorpusError(
            f"{path}: no record with Package and Description-en; expected a Translation-en file of Debian, which "
            "`apt-get -o Acquire::Languages=en update` leaves in /var/lib/apt/lists"
        )


def _read_records(path: str) -> Iterator[dict[str, list[str]]]:
    """Records as lines by field; lines after the first keep one blank less than in the file."""
    fields: dict[str, list[str]] = {}
    lines: list[str] = []
    with open_text(path) as stream:
        for number, line in enumerate(map(str.rstrip, stream), start=1):
            match = _FIELD.match(line)
            if not line:
                yield fields
                fields = {}
            elif line.startswith(" ") and fields:
                lines.append(line[1:])
            elif match:
                lines = fields[match[1]] = [match[2]]
            else:
                raise CorpusError(
                    f"{path}:{number}: expected `Field: value`, a line that begins with a blank, or an empty line, as "
                    "in Translation-en files of Debian"
                )
    yield fields


def _join_lines(lines: list[str]) -> list[str]:
    """Paragraphs of a description; each is one line, a list one line for each entry."""
    paragraphs = [""]
    for line in lines:
        text = " ".join(line.split())
        if text == ".":
            paragraphs.append("")
        elif not _CREDIT.match(text):
            paragraphs[-1] += f"\n{text}" if _BULLET.match(text) else f" {text}"
    return [text.strip() for text in paragraphs if text.strip()]
