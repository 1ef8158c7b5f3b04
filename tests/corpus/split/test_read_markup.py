"""Files of Markdown are read as such, compressed or not; everything else is plain text."""

import gzip
from pathlib import Path

from llm2comp.corpus.documents import Markup
from llm2comp.corpus.read import read_corpus


def test_markdown_files_are_marked(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# A\n")
    (tmp_path / "b.MD.gz").write_bytes(gzip.compress(b"# B\n"))
    (tmp_path / "c.txt").write_text("# C\n")
    markups = {document.id.rpartition("/")[2]: document.markup for document in read_corpus(tmp_path)}
    assert markups == {"a.md": Markup.MARKDOWN, "b.MD.gz": Markup.MARKDOWN, "c.txt": Markup.PLAIN}
