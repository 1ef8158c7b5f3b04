"""Pairs from descriptions of Debian packages: the synopsis asks for the description, and no text is used twice."""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from llm2comp.errors import CorpusError
from llm2comp.training.pairs.derive import derive_pairs
from llm2comp.training.pairs.packages import package_pairs
from llm2comp.training.pairs.settings import Pair, PairSettings

GEARS = "Gearbox draws gears, wheels and belts of any size, with a mouse or from a table of numbers, and turns them."
FORMATS = "Drawings are saved as: SVG and PDF for printing, or as a table of numbers."
PLAIN: dict[str, Any] = {"lowercase": 0, "unpunctuated": 0, "drop_word": 0, "synonyms": 0, "titled": 0}


def record(name: str, synopsis: str, *paragraphs: str) -> str:
    lines = " .\n".join(f"{paragraph}\n" for paragraph in paragraphs)
    return f"Package: {name}\nDescription-md5: 0123456789abcdef0123456789abcdef\nDescription-en: {synopsis}\n{lines}"


def translation(folder: Path, *records: str) -> str:
    (folder / "Translation-en").write_text("\n".join(records))
    return str(folder / "Translation-en")


def pairs_of(path: str, kind: str = "synopsis-description", **changes: Any) -> list[Pair]:
    settings = PairSettings(packages=(path,), **{**PLAIN, "passage_words": (90, 90), **changes})
    return [pair for pair in package_pairs(settings.packages, settings) if pair.kind == kind]


def texts(pairs: Sequence[Pair]) -> list[tuple[str, str]]:
    return [(pair.query, pair.positive) for pair in pairs]


WRAPPED = (
    " Gearbox draws gears, wheels and belts of any size, with a mouse or from\n  a table of numbers, and turns them.",
    " Drawings are saved as:\n  * SVG and PDF for\n    printing,\n  * or as a table  of numbers.\n Homepage: http://x.org",
)


def test_synopsis_asks_for_the_description_without_its_line_breaks(tmp_path: Path) -> None:
    path = translation(tmp_path, record("gearbox", "animated drawings of gears", *WRAPPED))
    description = f"{GEARS}\nDrawings are saved as:\n* SVG and PDF for printing,\n* or as a table of numbers."
    assert texts(pairs_of(path)) == [("animated drawings of gears", description)]
    assert texts(pairs_of(path, titled=1)) == [("animated drawings of gears", f"gearbox\n{description}")]
    assert texts(pairs_of(path, passage_words=(3, 3))) == [("animated drawings of gears", "Gearbox draws gears,")]
    assert texts(pairs_of(path, query_words=(2, 2))) == [("animated drawings", description)]
    assert not pairs_of(path, limits={"synopsis-description": 0})
    assert [pair.source for pair in pairs_of(path)] == ["gearbox"]


def test_files_may_be_compressed(tmp_path: Path) -> None:
    (tmp_path / "en.gz").write_bytes(gzip.compress(record("gearbox", "drawings of gears", f" {GEARS}").encode()))
    assert texts(pairs_of(str(tmp_path / "en.gz"))) == [("drawings of gears", GEARS)]


def test_a_text_that_several_packages_share_is_used_once(tmp_path: Path) -> None:
    theme = "Themes change the colours of all parts of a drawing at once and can be edited by hand in a text file."
    path = translation(
        tmp_path,
        record("libgearbox-dev", "animated gears (development files)", f" {GEARS}", " For those who build on it."),
        record("libgearbox2", "animated gears - shared library", f" {GEARS}"),
        record("gearbox12", "older version of animated gears", f" {GEARS.replace('Gearbox', 'Gearbox 12')}"),
        record("gearbox-themes", "colours for gears", f" {GEARS}", f" {theme}"),
    )
    assert texts(pairs_of(path)) == [
        ("older version of animated gears", GEARS.replace("Gearbox", "Gearbox 12")),
        ("colours for gears", theme),
    ]
    without = translation(tmp_path, *Path(path).read_text().split("\n\n")[:2])
    assert texts(pairs_of(without)) == [("animated gears", GEARS)]


def test_packages_that_say_nothing_are_left_out(tmp_path: Path) -> None:
    path = translation(
        tmp_path,
        record("gearbox-old", "drawings of gears (transitional package)", f" {GEARS}"),
        record("gearbox-dbg", "gears to look into", f" These are the debugging symbols. {GEARS}"),
        record("gearbox-all", "metapackage of all gears", f" {GEARS}"),
        record("gearbox-doc", "manual of gears", " Too short to say much about gears."),
        record("gearbox-none", "nothing of gears"),
    )
    assert not pairs_of(path)


def test_paragraphs_that_many_begin_alike_are_left_out(tmp_path: Path) -> None:
    records = [
        record(
            f"gearbox-{letter}",
            f"drawings of gears of the form {letter}",
            f" This package has the form {letter} of gears in all of its sizes and with all of its colours, too.",
            f" Form {letter} {GEARS}",
        )
        for letter in "abcdefghijklmno"
    ]
    path = translation(tmp_path, *records)
    assert [pair.positive for pair in pairs_of(path)] == [f"Form {letter} {GEARS}" for letter in "abcdefghijklmno"]
    assert pairs_of(translation(tmp_path, *records[1:]))[0].positive.startswith("This package has the form b of gears")


def test_a_sentence_asks_for_the_rest_of_a_description(tmp_path: Path) -> None:
    sentences = [
        "Gears are drawn with a mouse on a sheet of paper.",
        "Belts connect two wheels of any size and may be crossed.",
        "A motor turns the first wheel at a speed of your choice.",
        "The film of all wheels can be saved and sent to friends.",
        "Children of ten years learn in play how machines work.",
    ]
    path = translation(tmp_path, record("gearbox", "drawings of gears", f" {' '.join(sentences)}"))
    (pair,) = pairs_of(path, "part-description", keep_sentence=0)
    assert pair.query in sentences
    assert pair.positive == " ".join(sentence for sentence in sentences if sentence != pair.query)


def test_evaluation_texts_are_refused_and_pairs_counted(tmp_path: Path) -> None:
    path = translation(
        tmp_path,
        record("gearbox", "animated drawings of gears", f" {GEARS}"),
        record("sundial", "shows the time by the sun", f" {GEARS[::-1]}"),
    )
    (tmp_path / "eval.jsonl").write_text(json.dumps({"text": "Animated drawings of GEARS"}) + "\n")
    settings = PairSettings(packages=(path,), excluded=(str(tmp_path / "eval.jsonl"),), **PLAIN)
    assert derive_pairs(settings, tmp_path / "out") == {"synopsis-description": 1}
    assert json.loads((tmp_path / "out" / "pairs.json").read_text())["refused"] == {"synopsis-description": 1}
    assert "sundial" in gzip.decompress((tmp_path / "out" / "synopsis-description.jsonl.gz").read_bytes()).decode()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none", None, "none: no such file"),
        ("Translation-en.lz4", "x", r"Translation-en\.lz4: unpack it first: .*cat-file"),
        ("pairs.jsonl", '{"query": "a"}\n', r"pairs\.jsonl:1: expected `Field: value`"),
        ("Translation-de", "Package: a\nDescription-de: Zahnrad\n Ein Rad.\n", "no record with Package and Desc"),
        ("empty", "", "no record with Package and Description-en; expected a Translation-en file"),
        ("Translation-en.gz", "Package: a\n", r"truncated or damaged \.gz"),
    ],
)
def test_other_files_are_refused_in_one_line(tmp_path: Path, name: str, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(CorpusError, match=message) as caught:
        pairs_of(str(tmp_path / name))
    assert "\n" not in str(caught.value)
