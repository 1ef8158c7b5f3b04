"""Files of all kinds as documents: thirty odd ones beside what they must give, and what is wrong with bad ones."""

import html
import os
import re
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from llm2comp.corpus.documents import Document
from llm2comp.corpus.fields import FieldNames
from llm2comp.corpus.files.archive import TextArchive
from llm2comp.corpus.files.read import FILE_FIELDS
from llm2comp.corpus.files.readers import READERS, Reader
from llm2comp.corpus.read import read_corpus
from llm2comp.errors import CorpusError, SettingsError
from tests.corpus.odd_files import DOCUMENTS, MADE
from tests.corpus.office_files import make_docx, make_epub, make_pdf, make_zip, paragraph

ODD = Path(__file__).parent / "odd"
INSTALLED = not any(reader.missing() for reader in READERS.values())
pytestmark = pytest.mark.skipif(not INSTALLED, reason="the libraries of the extra `files` are not installed")


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files") / "odd"
    shutil.copytree(ODD, folder)
    for name, content in MADE.items():
        (folder / name).write_bytes(content)
    return folder


def without_file_fields(document: Document) -> Document:
    kept = {name: value for name, value in document.metadata.items() if name not in FILE_FIELDS}
    return replace(document, id="", metadata=kept)


def read_one(path: Path, content: bytes) -> Document:
    path.write_bytes(content)
    [document] = read_corpus(path)
    return document


def test_odd_files_give_the_documents_written_by_hand(odd: Path) -> None:
    documents = {document.metadata["file_path"]: document for document in read_corpus(odd)}
    assert {document.id for document in documents.values()} == {f"odd/{path}" for path in documents}
    assert sorted(documents) == sorted(DOCUMENTS)
    for path, expected in DOCUMENTS.items():
        assert without_file_fields(documents[path]) == expected, path
    manual = documents["manual.pdf"]
    assert [manual.text[start:].partition("\n")[0] for start in manual.pages] == ["Mix the dough and", "Bake.", "Bake."]


def test_path_name_and_time_are_metadata(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "a.txt"
    path.parent.mkdir()
    path.write_text("text")
    os.utime(path, (0, 86_400.5))
    expected = {"file_path": "sub/a.txt", "file_name": "a.txt", "file_modified": "1970-01-02T00:00:00+00:00"}
    assert [document.metadata for document in read_corpus(tmp_path)] == [expected]
    [document] = read_corpus(path)
    assert (document.id, document.metadata) == ("a.txt", {**expected, "file_path": "a.txt"})
    [document] = read_corpus(tmp_path / "**" / "*.txt", fields=FieldNames(metadata=("FILE_NAME", "tags")))
    assert document.metadata == {"FILE_NAME": "a.txt"}


def test_what_was_read_and_what_was_not_is_said_in_one_line(odd: Path, caplog: pytest.LogCaptureFixture) -> None:
    shutil.copytree(odd, again := odd.parent / "again")
    list(read_corpus(again))
    assert caplog.messages == [
        f'{again}/note.md: "author" is of the type object here, and text before; a filter finds the values of one type '
        "alone",
        f"{again}/values.md: values are left out of the metadata from here on: file_path (kept for the file)",
        f"{again}: 28 files read (.md 9, .html 7, .txt 3, .docx 2, .pdf 2, .rst 2, .epub 1, .markdown 1, .xhtml 1), of "
        'which 1 read as Windows-1252 (.html 1), such as "Café „Zur Post“" in latin.html; left out: 3 without text '
        "(.md 1, .pdf 1, .txt 1), 2 of unknown kinds (no suffix 1, .png 1)",
    ]


def test_nothing_is_said_above_information_where_all_files_are_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a.txt").write_text("text")
    with caplog.at_level("INFO"):
        list(read_corpus(tmp_path))
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("INFO", f"{tmp_path}: 1 file read (.txt 1)")
    ]


def test_a_folder_of_empty_files_is_an_empty_corpus(tmp_path: Path) -> None:
    for name in ("a.txt", "b.md"):
        (tmp_path / name).write_text("\n")
    with pytest.raises(
        CorpusError, match=r"an empty corpus: no document in it; left out: 2 without text \(.md 1, .txt 1\)"
    ):
        list(read_corpus(tmp_path))


BOMB = "<w:t>" + "a" * 70_000_000 + "</w:t>"
ENTITIES = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]>'
BAD = {
    "junk.docx": (b"junk", "not a readable .docx file"),
    "cut.docx": (make_docx(paragraph("text"))[:-40], "not a readable .docx file"),
    "other.docx": (make_zip({"a.txt": "text"}), "a damaged .docx file: it has no document"),
    "locked.docx": (b"\xd0\xcf\x11\xe0" + bytes(600), "protected by a password, or an old Office file"),
    "bomb.docx": (make_docx("<w:p><w:r>" + BOMB + "</w:r></w:p>"), "expands to more than 200 times its size"),
    "entities.docx": (
        make_docx("", more={"word/document.xml": f"{ENTITIES}<w:document>&b;</w:document>"}),
        "word/document.xml in it declares entities, as XML bombs do",
    ),
    "broken.docx": (make_docx("<w:p>"), "a damaged .docx file"),
    "deep.docx": (make_docx("<w:p><w:r>" + "<w:ins>" * 3000 + "</w:ins>" * 3000 + "</w:r></w:p>"), "nested too deeply"),
    "junk.epub": (b"junk", "not a readable .epub file"),
    "other.epub": (make_zip({"a.txt": "text"}), "a damaged .epub file: it has no META-INF/container.xml"),
    "bomb.epub": (make_epub({"a.xhtml": "<p>" + "a" * 70_000_000 + "</p>"}), "expands to more than 200 times its size"),
    "entities.epub": (make_epub({"a.xhtml": f"{ENTITIES}<p>&b;</p>"}), "OEBPS/a.xhtml in it declares entities"),
    "lacks.epub": (
        make_epub({}, more={"OEBPS/book.opf": '<p xmlns="x"><spine><itemref idref="c"/></spine></p>'}),
        "a damaged .epub file: its reading order names c, which it lacks",
    ),
    "empty.epub": (make_epub({}), "a damaged .epub file: its reading order is empty"),
    "locked.epub": (
        make_epub(
            {"a.xhtml": "<p>x</p>"},
            more={"META-INF/encryption.xml": '<e xmlns="x"><CipherReference URI="OEBPS/a.xhtml"/></e>'},
        ),
        r"protected against copying \(OEBPS/a.xhtml in it is encrypted\)",
    ),
    "junk.pdf": (b"junk", "not a readable PDF file"),
    "locked.pdf": (make_pdf([["secret"]], password=True), "protected by a password; save it without one"),
    "list.md": (b"---\n- a\n- b\n---\ntext", "the front matter is a list, expected lines of `name: value`"),
    "text.md": (b"---\nA text\n---\ntext", "the front matter is a text, expected .*begin the file with a blank line"),
    "yaml.md": (b"---\na: [\n---\ntext", "the front matter is not YAML: line 3: "),
    "aliases.md": (b"---\na: &a [1]\nb: [*a, *a]\n---\ntext", r"the front matter has YAML aliases \(\*name\)"),
    "python.md": (b"---\na: !!python/object:os.system {}\n---\ntext", "the front matter is not YAML: line 2: "),
    "infinite.md": (b"---\na: .inf\n---\ntext", "'a' is inf, which metadata cannot hold"),
    "twice.md": (b"---\na: 1\nb: 2\na: 3\n---\ntext", "the front matter is not YAML: line 4: the key 'a' stands twice"),
    "nested-twice.md": (
        b"---\na:\n  - {1: x, '1': y}\n---\ntext",
        "the front .* line 3: the key '1' stands twice in one",
    ),
    "toml.md": (b"+++\na = 1\nb = [\n+++\ntext", "the front matter is not TOML: .*"),
    "toml-twice.md": (b"+++\na = 1\na = 2\n+++\ntext", "the front matter is not TOML: Cannot overwrite .*in line 3"),
    "title.md": (b"---\ntitle: [a]\n---\ntext", "the title in the front matter is a list, expected a text"),
    "nested.md": (b"---\na: " + b"[" * 900 + b"]" * 900 + b"\n---\ntext", "nested too deeply"),
    "latin.md": (b"a\nb\n\xe9", "not UTF-8; convert the file with iconv"),
    "long.rst": (b"a\n" + b"word " * 2001, "line 2 has more than 10,000 characters, more than docutils reads"),
    "latin.rst": (b"\xe9", "not UTF-8; convert the file with iconv"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_one_line_that_names_it(name: str, tmp_path: Path) -> None:
    content, message = BAD[name]
    (tmp_path / name).write_bytes(content)
    (tmp_path / "good.txt").write_text("text")
    with pytest.raises(CorpusError, match=f"^{tmp_path / name}(:\\d+)?: {message}") as error:
        list(read_corpus(tmp_path))
    assert "\n" not in str(error.value)
    skipped: list[str] = []
    [document] = read_corpus(tmp_path, on_error="skip", on_skip=skipped.append)
    assert document.metadata["file_name"] == "good.txt"
    assert skipped == [str(error.value)]


def test_texts_of_an_archive_are_limited_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm2comp.corpus.files.archive._MOST_BYTES", 100)
    archive = TextArchive(make_zip({"a": b"a" * 60, "b": b"b" * 60}, compression=zipfile.ZIP_STORED), ".epub")
    assert len(archive.read("a")) == 60
    with pytest.raises(ValueError, match="as a zip bomb does"):
        archive.read("b")


def test_a_part_with_a_password(tmp_path: Path) -> None:
    content = bytearray(make_docx(paragraph("text")))
    for start in range(len(content)):
        if content[start : start + 4] == b"PK\x01\x02":
            content[start + 8] |= 1
    (tmp_path / "a.docx").write_bytes(content)
    with pytest.raises(CorpusError, match=r"a\.docx: protected by a password"):
        list(read_corpus(tmp_path / "a.docx"))


def test_a_file_that_changes_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    path.write_text("text")

    def read_and_change(changing: Path, encoding: str | None) -> bytes:
        content = changing.read_bytes()
        changing.write_text("another text")
        return content

    monkeypatch.setattr("llm2comp.corpus.files.read.read_bytes", read_and_change)
    with pytest.raises(CorpusError, match=f"^{path}: changed while it was read; read it again"):
        list(read_corpus(path))


def test_a_library_that_is_not_installed(tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: Any) -> None:
    monkeypatch.setitem(READERS, ".pdf", Reader(READERS[".pdf"].read, ("no_such_module",)))
    (tmp_path / "a.txt").write_text("text")
    for name in ("b.pdf", "c.pdf"):
        (tmp_path / name).write_bytes(make_pdf([["text"]]))
    documents = read_corpus(tmp_path)
    message = 'reading it needs no_such_module, which is not installed: pip install "llm2comp[files]"'
    with pytest.raises(CorpusError, match=f"^{tmp_path / 'b.pdf'}: {re.escape(message)}$"):
        next(documents)
    skipped: list[str] = []
    assert [one.text for one in read_corpus(tmp_path, on_error="skip", on_skip=skipped.append)] == ["text"]
    assert skipped == [f"{tmp_path / name}: {message}" for name in ("b.pdf", "c.pdf")]
    assert caplog.messages == [f"{tmp_path}: 1 file read (.txt 1); left out: 2 needing no_such_module (.pdf 2)"]


def test_rows_beside_texts_of_other_kinds_are_read_as_before(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "rows.csv").write_text("id,text\n1,row\n")
    (tmp_path / "README.html").write_text("<p>page")
    assert list(read_corpus(tmp_path)) == [Document("1", "", "row")]
    assert caplog.messages == [
        f"{tmp_path}: only the files of rows are read, not the texts beside them (README.html): name them, or a pattern"
    ]
    (tmp_path / "a.md").write_text("text")
    assert [one.text for one in read_corpus(tmp_path)] == ["page", "text"]


def test_fields_of_files_other_than_metadata_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text("<p>page")
    for names in (FieldNames(title="x"), FieldNames(text=("x",)), FieldNames(id="x", metadata=("file_name",))):
        with pytest.raises(SettingsError, match=r"texts have no fields.*\(x\); leave all but those of metadata out"):
            read_corpus(tmp_path, fields=names)


def test_the_table_of_formats_has_every_kind() -> None:
    page = (Path(__file__).parents[2] / "docs" / "corpora.md").read_text(encoding="utf-8")
    table = page.partition("## What each format gives")[2].partition("## Files")[0]
    assert [suffix for suffix in READERS if f"`{suffix}`" not in table] == []


def test_lock_files_of_office_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "~$letter.docx").write_bytes(b"\x03Ada")
    (tmp_path / "letter.docx").write_bytes(MADE["letter.docx"])
    for corpus in (tmp_path, tmp_path / "*.docx"):
        assert [one.title for one in read_corpus(corpus)] == ["On flour"]
        assert caplog.messages[-1] == (
            f"{corpus}: 1 file read (.docx 1); left out: 1 kept by Office beside open documents (.docx 1)"
        )


def test_an_encoding_that_is_given_goes_before_what_the_page_names(tmp_path: Path) -> None:
    page = tmp_path / "a.html"
    page.write_bytes('<meta charset="utf-8"><title>Хлеб</title><p>Мука'.encode("cp1251"))
    [document] = read_corpus(page, encoding="windows-1251")
    assert (document.title, document.text) == ("Хлеб", "Мука")
    (tmp_path / "b.md").write_bytes("# Хлеб\n\nМука".encode("cp1251"))
    [document] = read_corpus(tmp_path / "b.md", encoding="windows-1251")
    assert (document.title, document.text) == ("Хлеб", "Мука")


@pytest.mark.parametrize("encoding", ["utf-16", "cp1252"])
def test_markdown_in_encodings_that_show(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "a.md").write_bytes("---\ntitle: Café\n---\nnaïve".encode(encoding))
    [document] = read_corpus(tmp_path)
    assert (document.title, document.text) == ("Café", "naïve")


def test_a_book_whose_fonts_alone_are_encrypted_is_read(tmp_path: Path) -> None:
    fonts = '<e xmlns="x"><CipherReference URI="OEBPS/font.otf"/></e>'
    content = make_epub({"a.xhtml": "<p>text</p>"}, more={"META-INF/encryption.xml": fonts})
    assert read_one(tmp_path / "a.epub", content).text == "text"


def test_a_name_of_metadata_that_no_file_has(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.md").write_text("---\nTags: x\n---\ntext")
    (tmp_path / "b.txt").write_text("text")
    names = FieldNames(metadata=("tags", "file_pth"))
    assert [one.metadata for one in read_corpus(tmp_path, fields=names)] == [{"tags": "x"}, {}]
    there = "the fields are Tags, file_path, file_name, file_modified"
    assert caplog.messages == [f"{tmp_path}: no file has the field file_pth; {there}"]
    for path in (tmp_path / "a.md", tmp_path / "b.txt"):  # of one file it is known at once, as of one table
        with pytest.raises(CorpusError, match=f"^{path}: no field file_pth.*; the fields are .*file_path, file_name"):
            list(read_corpus(path, fields=FieldNames(metadata=("file_pth",))))
    assert [one.metadata for one in read_corpus(tmp_path / "a.md", fields=FieldNames(metadata=("TAGS",)))] == [
        {"TAGS": "x"}
    ]


def test_a_pattern_that_matches_a_file_twice(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.txt").write_text("text")
    assert len(list(read_corpus(tmp_path / "**" / "**" / "*.txt"))) == 1


@settings(max_examples=300, deadline=None, derandomize=True)
@example(lines=[">1", ">="], around="<p>{}")
@given(
    lines=st.lists(st.text("#=-`~ *>1.|+:\\a", min_size=1, max_size=7), min_size=1, max_size=3),
    around=st.sampled_from(["<p>{}", "<ul><li>{}<li>x", "<p>q<h2>{}</h2><p>x", "<blockquote>{}", "<dl><dt>t<dd>{}"]),
)
def test_no_text_of_a_page_becomes_a_heading_or_code(lines: list[str], around: str) -> None:
    content = READERS[".html"].read(around.format("<br>".join(map(html.escape, lines))).encode())
    kinds = [token.type for token in MarkdownIt("commonmark").enable("table").parse(content.text)]
    assert kinds.count("heading_open") == ("<h2>" in around and any(map(str.strip, lines)))
    assert not {"fence", "code_block", "table_open"}.intersection(kinds)


HIDDEN = {
    "<p style='display:none'>x</p><p>y": "y",
    "<p>a<span style='color: red; DISPLAY : None !important;'>x</span><b style=' Visibility:Hidden '>x</b>b": "ab",
    "<p style='display: block; visibility: visible'>y": "y",
    "<p style='display: none; display: block'>y": "y",
    "<p style='--display: none; background: url(none)'>y": "y",
    "<pre>a<i style='display:none'>x</i><i aria-hidden=true>x</i>b</pre>": "```\nab\n```",
    "<table><tr><td>a<td>b<td hidden>x<tr style='display:none'><td>x<td>x<tbody hidden><tr><td>x<td>x</table>": (
        "| a | b |\n| --- | --- |"
    ),
    "<p>Let <span style='display: none'><math alttext='a+b'><mi>a</mi></math></span><img aria-hidden=true alt=x>": (
        "Let a+b"
    ),
}
PICTURES = {
    "<p>A <img alt='pic'>next, <img alt='one'><img alt='two'>.": "A pic next, one two.",
    "<p>word<img alt='pic'>, (<img alt='pic'>) <img alt=''>x<img>y": "word pic, (pic) xy",
    "<p>yes<img alt='\N{GRINNING FACE}'>sir <a href=b><img alt='logo'>Home</a>": "yes \N{GRINNING FACE} sir logo Home",
}


@pytest.mark.parametrize("page", [*HIDDEN, *PICTURES])
def test_what_is_hidden_and_what_pictures_say(page: str) -> None:
    assert READERS[".html"].read(page.encode()).text == {**HIDDEN, **PICTURES}[page]


def test_hidden_runs_of_a_document(tmp_path: Path) -> None:
    def run(text: str, mark: str = "") -> str:
        return f"<w:r><w:rPr>{mark}</w:rPr><w:t>{text}</w:t></w:r>"

    runs = run("a") + run("x", "<w:b/><w:vanish/>") + run("b", '<w:vanish w:val="0"/>') + run("\N{BREAD}", "<w:b/>")
    notes = make_docx(
        paragraph(f'{runs}<w:r><w:footnoteReference w:id="1"/></w:r>') + paragraph(run("x", "<w:vanish/>"))
    )
    assert read_one(tmp_path / "a.docx", notes).text.startswith("ab\N{BREAD}")
    assert "x" not in read_one(tmp_path / "a.docx", notes).text


def test_front_matter_in_toml(tmp_path: Path) -> None:
    source = """+++
title = "Bread"
tags = ["a", "b"]
day = 2024-01-31
at = 07:32:00
draft = false
[params]
weight = 1.5
+++

# Flour

+++
"""
    document = read_one(tmp_path / "a.md", source.encode())
    assert without_file_fields(document).metadata == {
        "tags": ["a", "b"],
        "day": "2024-01-31",
        "at": "07:32:00",
        "draft": False,
        "params": {"weight": 1.5},
    }
    assert (document.title, document.text) == ("Bread", "# Flour\n\n+++\n")


@pytest.mark.parametrize("value", ["2024-13-45", "2024-02-30", "2024-01-31 25:00:00"])
def test_a_date_that_does_not_exist_is_text(value: str, tmp_path: Path) -> None:
    document = read_one(tmp_path / "a.md", f"---\nday: {value}\n---\nBread.".encode())
    assert without_file_fields(document).metadata == {"day": value}


@pytest.mark.parametrize("text", ["---\nauthor: Ann\n\nBread.", "+++\nauthor = 'Ann'\nBread.", "+++\n[a]\n---\n"])
def test_front_matter_without_an_end_is_text(text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    document = read_one(path := tmp_path / "a.md", text.encode())
    assert document.text == text
    fault = "with front matter that has no second line of --- or +++, read as text"
    assert caplog.messages == [f"{path}: {fault}"]
    caplog.clear()
    (tmp_path / "b.md").write_text("---\n\nA line: a rule.")
    list(read_corpus(tmp_path))
    assert caplog.messages == [f"{tmp_path}: 2 files read (.md 2), of which 1 {fault} (.md 1), such as a.md"]


def test_runs_of_a_document_that_styles_hide(tmp_path: Path) -> None:
    def style(kind: str, name: str, more: str) -> str:
        return f'<w:style w:type="{kind}" w:styleId="{name}"><w:name w:val="{name}"/>{more}</w:style>'

    def run(text: str, style: str = "", mark: str = "") -> str:
        return f'<w:r><w:rPr><w:rStyle w:val="{style}"/>{mark}</w:rPr><w:t>{text} </w:t></w:r>'

    hidden = "<w:rPr><w:vanish/></w:rPr>"
    word = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
    styles = f"<w:styles {word}>" + "".join(
        [
            style("character", "Secret", hidden),
            style("character", "Below", '<w:basedOn w:val="Secret"/>'),
            style("character", "Shown", '<w:basedOn w:val="Secret"/><w:rPr><w:vanish w:val="false"/></w:rPr>'),
            style("character", "Round", '<w:basedOn w:val="Round"/>'),
            style("paragraph", "Note", hidden),
            "</w:styles>",
        ]
    )
    body = (
        paragraph(run("a") + run("x", "Secret") + run("x", "Below") + run("b", "Shown") + run("c", "Round"))
        + paragraph(run("d", "Secret", '<w:vanish w:val="0"/>') + run("x", "Shown", "<w:vanish/>"))
        + paragraph(run("x") + run("e", "Secret"), "Note")
        + paragraph(run("f"))
    )
    content = make_docx(body, more={"word/styles.xml": styles})
    assert read_one(tmp_path / "a.docx", content).text.split() == ["a", "b", "c", "d", "e", "f"]


def test_deep_pages_take_no_stack(tmp_path: Path) -> None:
    for name in ("div", "blockquote", "ul><li", "table><tr><td", "b"):
        page = f"<{name}>" * 3000 + "text" + "<p>more" * 100
        document = read_one(tmp_path / "a.html", page.encode())
        assert "text" in document.text
        assert len(document.text) < 20_000


def test_a_span_of_many_columns_is_bounded(tmp_path: Path) -> None:
    page = "<table>" + "<tr><td colspan=99999 rowspan=65534>a<td>b" * 50
    assert len(read_one(tmp_path / "a.html", page.encode()).text) < 1_000_000
