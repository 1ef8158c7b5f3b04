"""The documentation of installed Python code as a corpus."""

import inspect
import json
import math
import warnings
from collections import Counter
from pathlib import Path

import pytest

from llm2comp.corpus import python_docs
from llm2comp.corpus.documents import Document
from llm2comp.corpus.python_docs import is_held_out, read_python_docs, remove_names, split_summary
from llm2comp.corpus.read import read_corpus


@pytest.fixture(scope="module")
def standard_library() -> dict[str, Document]:
    documents = list(read_corpus("python-docs:"))
    by_id = {document.id: document for document in documents}
    assert len(by_id) == len(documents)  # no id twice
    return by_id


def test_standard_library_is_a_corpus_of_thousands(standard_library: dict[str, Document]) -> None:
    assert len(standard_library) > 4000
    assert all(document.title and document.text.strip() for document in standard_library.values())
    json.dumps(
        [[document.content, document.metadata] for document in standard_library.values()], ensure_ascii=False
    ).encode("utf-8")


def test_functions_classes_and_modules_are_there(standard_library: dict[str, Document]) -> None:
    dumps = standard_library["json.dumps"]
    assert dumps.title.startswith("json.dumps(obj, ")
    assert dumps.text == inspect.getdoc(json.dumps)
    assert dumps.metadata["module"] == "json"
    assert dumps.metadata["kind"] == "function"
    assert dumps.metadata["source"].startswith("json/__init__.py:")
    assert standard_library["collections.Counter"].metadata["kind"] == "class"
    assert standard_library["shutil"].metadata["kind"] == "module"


def test_modules_written_in_c_are_there(standard_library: dict[str, Document]) -> None:
    square_root = standard_library["math.sqrt"]  # a separate file in most builds, part of the interpreter in some
    assert square_root.title == f"math.sqrt{inspect.signature(math.sqrt)}"
    assert square_root.text == inspect.getdoc(math.sqrt)
    assert standard_library["builtins.str.split"].title == "builtins.str.split(sep=None, maxsplit=-1)"
    assert not [document.title for document in standard_library.values() if "($" in document.title]


def test_tests_and_packages_are_not_in_it(standard_library: dict[str, Document]) -> None:
    first = Counter(name.split(".")[0] for name in standard_library)
    assert not {"test", "idlelib", "lib2to3", "pip", "numpy"} & first.keys()


def test_order_is_the_same_every_time(standard_library: dict[str, Document]) -> None:
    assert [document.id for document, _ in zip(read_python_docs(), range(500), strict=False)] == list(standard_library)[
        :500
    ]


def test_modules_that_warn_on_import_are_no_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    def import_with_warning(name: str) -> object:
        warnings.warn(f"{name} leaves in the next version", DeprecationWarning, stacklevel=2)
        return math

    monkeypatch.setattr("importlib.import_module", import_with_warning)
    assert next(python_docs._read_compiled_modules()).text == math.__doc__


def test_sources_are_parsed_and_never_run(tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text('"""Doc of the package."""\nraise SystemExit\n')
    (tmp_path / "package" / "broken.py").write_text('"""Doc"""\ndef (:\n')
    (tmp_path / "package" / "folder.py").mkdir()
    (tmp_path / "package" / "dangling.py").symlink_to(tmp_path / "absent.py")
    (tmp_path / "package" / "m.py").write_text(
        'class A:\n    async def run(self, x: int = 1):\n        """Run.\n\n        More.\n        """\n'
    )
    (tmp_path / "package" / "tests").mkdir()
    (tmp_path / "package" / "tests" / "t.py").write_text('"""Left out."""\n')
    assert list(python_docs._read_root(tmp_path)) == [
        Document(
            "package",
            "package",
            "Doc of the package.",
            {"module": "package", "kind": "module", "source": "package/__init__.py:1"},
        ),
        Document(
            "package.m.A.run",
            "package.m.A.run(self, x: int=1)",
            "Run.\n\nMore.",
            {"module": "package.m", "kind": "function", "source": "package/m.py:2"},
        ),
    ]


@pytest.mark.parametrize(
    ("text", "summary", "body"),
    [
        ("One line.", "One line.", ""),
        ("  Two\n  lines.\n\nBody.\n\nMore.  ", "Two lines.", "Body.\n\nMore."),
        ("", "", ""),
    ],
)
def test_split_summary(text: str, summary: str, body: str) -> None:
    assert split_summary(text) == (summary, body)


def test_remove_names_takes_whole_words_only() -> None:
    document = Document("shutil.copy", "shutil.copy(src, dst)", "")
    assert (
        remove_names(document, "Use shutil.copy to copy, not copyfile; copy() copies.")
        == "Use . to , not copyfile; () copies."
    )
    assert remove_names(Document("a.b", "", ""), "a.b") == "a.b"


def test_held_out_part_depends_on_the_letters_of_the_summary_only() -> None:
    texts = [f"Return the {number}th item of the list." for number in range(4000)]
    held_out = [text for text in texts if is_held_out(text)]
    assert 400 < len(held_out) < 600  # one in eight
    for text in held_out[:50]:
        assert is_held_out(f"  {text.upper().replace(' ', chr(10))}!\n\nAnother body.")
