"""Files of Markdown and of code are read as such; code only where the corpus names it."""

import gzip
from pathlib import Path

import pytest

from llm2comp.corpus.documents import Markup
from llm2comp.corpus.read import read_corpus
from llm2comp.errors import CorpusError


def test_markdown_files_are_marked(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# A\n\ntext\n")
    (tmp_path / "b.MD.gz").write_bytes(gzip.compress(b"# B\n\ntext\n"))
    (tmp_path / "c.txt").write_text("# C\n")
    markups = {document.id.rpartition("/")[2]: document.markup for document in read_corpus(tmp_path)}
    assert markups == {"a.md": Markup.MARKDOWN, "b.MD.gz": Markup.MARKDOWN, "c.txt": Markup.PLAIN}


def test_code_is_read_where_the_corpus_names_it(tmp_path: Path) -> None:
    (tmp_path / "src" / "deep").mkdir(parents=True)
    (tmp_path / "src" / "deep" / "one.py").write_text("def one():\n    return 1\n")
    (tmp_path / "src" / "two.py").write_text("def two():\n    return 2\n")
    (tmp_path / "src" / "three.js").write_text("let three = 3\n")
    (tmp_path / "src" / "notes.txt").write_text("notes")
    documents = list(read_corpus(str(tmp_path / "src" / "**" / "*.py"), name="src"))
    assert [(document.id, document.title, document.markup) for document in documents] == [
        ("src/deep/one.py", "one.py", Markup.CODE),
        ("src/two.py", "two.py", Markup.CODE),
    ]
    [alone] = read_corpus(tmp_path / "src" / "three.js")
    assert (alone.title, alone.text, alone.markup) == ("three.js", "let three = 3\n", Markup.CODE)
    assert [document.id for document in read_corpus(tmp_path / "src")] == ["src/notes.txt"]
    (tmp_path / "src" / "notes.txt").unlink()
    with pytest.raises(CorpusError, match=r"a pattern reads its code: '.*/src/\*\*/\*\.(js|py)'$"):
        list(read_corpus(tmp_path / "src"))
