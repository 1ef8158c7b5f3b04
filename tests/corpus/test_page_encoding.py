"""Pages whose bytes are not in the encoding that they name."""

from pathlib import Path

import pytest

from llm2comp.corpus.files.readers import READERS
from llm2comp.corpus.read import read_corpus
from llm2comp.errors import CorpusError
from tests.corpus.office_files import make_epub

INSTALLED = not (READERS[".html"].missing() or READERS[".epub"].missing())
pytestmark = pytest.mark.skipif(not INSTALLED, reason="the libraries of the extra `files` are not installed")

WINDOWS = "read as Windows-1252"
AGAINST = "read as UTF-8 in spite of another declared charset"
PAGES = {
    "undeclared": ("<p>naïve café".encode(), "naïve café", None),
    "latin, undeclared": (b"<p>the caf\xe9", "the café", WINDOWS),
    "latin as utf-8": (b"<meta charset='utf-8'><p>the caf\xe9", "the café", WINDOWS),
    "latin as utf-8 in XHTML": (
        b'<?xml version="1.0" encoding="utf-8"?><html><body><p>the caf\xe9</p></body></html>',
        "the café",
        WINDOWS,
    ),
    "declared": ('<meta charset="koi8-r"><p>Мука'.encode("koi8-r"), "Мука", None),
    "utf-8 as koi8-r": ("<meta charset=koi8-r><p>Мука".encode(), "Мука", AGAINST),
    "utf-8 as windows-1252": ("<meta charset=iso-8859-1><p>café".encode(), "café", AGAINST),
    "utf-8 as gbk": ("<meta charset=gbk><p>中文网页".encode(), "中文网页", AGAINST),
    "ASCII": (b"<meta charset=koi8-r><p>text", "text", None),
    "more than GB 2312": ("<meta charset=gb2312><p>朱镕基".encode("gbk"), "朱镕基", None),
    "a mark against the name": ("\ufeff<meta charset=koi8-r><p>Мука".encode(), "Мука", None),
    "a mark of UTF-32": ("<meta charset=koi8-r><p>Мука".encode("utf-32"), "Мука", None),
    "not the encoding of its own name": (b"<meta charset=cp037><p>the caf\xe9", "the café", WINDOWS),
}
BAD = {
    "Cyrillic, undeclared": ("<p>Мука".encode("cp1251"), "not UTF-8; convert .*--encoding NAME"),
    "Cyrillic among markup": (
        f"<style>{'a b {}' * 9}</style><!-- {'a' * 99} --><div class=content>Мука&nbsp;</div>".encode("cp1251"),
        "not UTF-8; ",
    ),
    "one broken letter": ("<meta charset=utf-8><p>café naïve".encode() + b" caf\xe9", "not UTF-8; "),
    "Japanese as EUC": (
        "<meta charset=euc-jp><p>日本語".encode("cp932"),
        "neither UTF-8 nor the euc_jp that it names; ",
    ),
    "a mark alone": (b"\xff\xfe<", "not the UTF-16 that its first bytes announce; "),
    "a mark before Latin": (b"\xef\xbb\xbf<p>the caf\xe9", "not the UTF-8 that its first bytes announce; "),
}


@pytest.mark.parametrize("name", PAGES)
def test_the_bytes_go_before_the_name(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    content, text, note = PAGES[name]
    path = tmp_path / ("a.xhtml" if b"<?xml" in content else "a.html")
    path.write_bytes(content)
    assert [one.text for one in read_corpus(path)] == [text]
    sample = ', with "the café" in it' if note == WINDOWS else ""
    assert caplog.messages == ([f"{path}: {note}{sample} (--encoding NAME chooses another)"] if note else [])
    caplog.clear()
    assert [one.text for one in read_corpus(tmp_path)] == [text]
    example = f'"the café" in {path.name}' if note == WINDOWS else path.name
    line = f"{tmp_path}: 1 file read ({path.suffix} 1), of which 1 {note} ({path.suffix} 1), such as {example}"
    assert caplog.messages == ([line] if note else [])


@pytest.mark.parametrize("name", BAD)
def test_bytes_in_no_encoding_that_shows_are_an_error(name: str, tmp_path: Path) -> None:
    content, message = BAD[name]
    path = tmp_path / "a.html"
    path.write_bytes(content)
    (tmp_path / "good.txt").write_text("text")
    with pytest.raises(CorpusError, match=f"^{path}: {message}"):
        list(read_corpus(path))
    skipped: list[str] = []
    assert [one.text for one in read_corpus(tmp_path, on_error="skip", on_skip=skipped.append)] == ["text"]
    assert [line.startswith(f"{path}: ") for line in skipped] == [True]


def test_chapters_of_a_book(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.epub"
    path.write_bytes(make_epub({"a.xhtml": "<p>text</p>", "b.xhtml": b"<html><p>the caf\xe9</p></html>"}))
    assert [one.text for one in read_corpus(path)] == ["text\n\nthe café"]
    assert caplog.messages == [f'{path}: {WINDOWS}, with "the café" in it']
    path.write_bytes(make_epub({"a.xhtml": "<html><p>Мука</p></html>".encode("cp1251")}))
    with pytest.raises(CorpusError, match=f"^{path}: OEBPS/a.xhtml in it is not UTF-8; write"):
        list(read_corpus(path))
