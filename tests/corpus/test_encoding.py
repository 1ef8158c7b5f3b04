"""Files of text in other encodings than UTF-8."""

import gzip
import json
from pathlib import Path

import pytest

from llm2comp.corpus.encoding import choose_encoding
from llm2comp.corpus.read import read_corpus, read_queries
from llm2comp.corpus.text import open_text
from llm2comp.errors import CorpusError, SettingsError

TEXT = "Müller sagt \u201eja\u201c für 5 €"
CSV = f"id,text,year\n1,{TEXT},1999\n2,plain,2000\n"


def read(path: Path, **settings: object) -> list[str]:
    return [document.text for document in read_corpus(path, **settings)]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "windows-1252"])
@pytest.mark.parametrize("compressed", [False, True])
def test_csv_in_other_encodings(
    encoding: str, compressed: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mark = "\ufeff" if encoding.endswith(("-le", "-be")) else ""
    content = (mark + CSV).encode(encoding)
    path = tmp_path / ("c.csv.gz" if compressed else "c.csv")
    path.write_bytes(gzip.compress(content) if compressed else content)
    for _ in range(2):
        assert read(path) == [TEXT, "plain"]
    assert [document.metadata["year"] for document in read_corpus(path)] == [1999, 2000]
    assert read_queries(path) == {"1": TEXT, "2": "plain"}
    lines = [line for line in caplog.messages if "columns read" not in line]
    if encoding == "utf-8-sig":
        assert not lines
    elif encoding == "windows-1252":
        [line] = lines
        assert line.startswith(f"{path}: not UTF-8, and read as Windows-1252, with ")
        assert "Müller" in line
        assert "--encoding" in line
    else:
        assert lines == [f"{path}: begins with the byte order mark of {encoding[:6].upper()}, and is read so"]


@pytest.mark.parametrize("encoding", ["utf-16", "windows-1252"])
def test_texts_in_other_encodings(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(TEXT, encoding=encoding)
    (tmp_path / "b.md").write_text(TEXT, encoding="utf-8")
    assert read(tmp_path) == [TEXT, TEXT]


def test_json_lines_in_utf_16(tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").write_text(json.dumps({"text": TEXT}, ensure_ascii=False), encoding="utf-16")
    assert read(tmp_path / "c.jsonl") == [TEXT]


def test_json_lines_in_another_encoding_are_no_guess(tmp_path: Path) -> None:
    """JSON is UTF-8 by its standard."""
    path = tmp_path / "c.jsonl"
    path.write_text(json.dumps({"text": TEXT}, ensure_ascii=False), encoding="windows-1252")
    with pytest.raises(CorpusError, match=r":1: not UTF-8 \(byte 0xfc .*--encoding"):
        read(path)
    assert read(path, encoding="cp1252") == [TEXT]


@pytest.mark.parametrize(
    "content",
    [
        "Müller".encode() + b" M\xfcller",  # one broken letter in UTF-8
        "Привет, мир, как дела".encode("cp1251"),
        b"a few letters and \x81",  # no character in Windows-1252
        "日本語のテキスト".encode("shift-jis"),
    ],
)
def test_a_guess_is_made_where_it_is_a_good_one(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_bytes(b"id,text\n1," + content + b"\n")
    assert choose_encoding(path, None) is None
    with pytest.raises(CorpusError, match="c.csv:2: not UTF-8"):
        read(path)


def test_the_encoding_can_be_chosen(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_bytes("id,text\n1,Привет\n".encode("cp1251"))
    assert read(path, encoding="cp1251") == ["Привет"]
    assert read(path, encoding="Windows-1251") == ["Привет"]
    with pytest.raises(CorpusError, match="c.csv:2: not UTF-8"):
        read(path, encoding="utf-8")
    with pytest.raises(
        CorpusError, match=r"c.csv: not ascii \(in the first block\); name its encoding with --encoding"
    ):
        read(path, encoding="ascii")
    for wrong in ("utf-88", "base64", "rot13", ""):
        with pytest.raises(SettingsError, match="expected one that Python knows"):
            read(path, encoding=wrong)


def test_a_mark_without_its_encoding(tmp_path: Path) -> None:
    path = tmp_path / "c.txt"
    path.write_bytes(b"\xff\xfe\x00")
    with (
        open_text(path) as file,
        pytest.raises(CorpusError, match="c.txt: not UTF-8, and not the UTF-16 that its first"),
    ):
        file.read()


def test_a_changed_file_is_judged_anew(tmp_path: Path) -> None:
    path = tmp_path / "c.txt"
    path.write_text(TEXT, encoding="windows-1252")
    assert read(path) == [TEXT]
    path.write_text(TEXT + " ü", encoding="utf-8")
    assert read(path) == [TEXT + " ü"]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("name", ["c.csv", "c.txt"])
def test_utf_16_without_a_mark_is_named(name: str, encoding: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes("id,text\n1,hello café\n2,world\n".encode(encoding))
    message = f"{name}: it looks like UTF-16 without a byte order mark; name the encoding: --encoding {encoding}$"
    with pytest.raises(CorpusError, match=message):
        list(read_corpus(path))
    assert "hello café" in [*read_corpus(path, encoding=encoding)][0].text
