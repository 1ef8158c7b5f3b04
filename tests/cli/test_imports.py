"""What each command does not import: the time for torch, pandas or mteb is paid only by commands that need them."""

import json
from pathlib import Path

import pytest

from tests.child_process import run_python
from tests.paths import RESULTS
from tests.word_encoder import WordEncoder

LEARNING = {"torch", "transformers", "sentence_transformers", "peft", "accelerate", "sklearn"}
TABLES = {"pandas", "pyarrow", "datasets", "polars"}
EVALUATION = {"mteb", "pytrec_eval", "bm25s", "nltk", "matplotlib"}
SATELLITES = {"llm2comp_benchmarks", "llm2comp.training", "llm2comp.analysis", "llm2comp.export"}

COMMAND = """
import sys
from llm2comp.cli import main
sys.argv[0] = "llm2comp"
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
print("\\n" + " ".join(sys.modules))
"""


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hybrid index of a few documents, with metadata."""
    from llm2comp_indexes import IndexOptions, build_index

    folder = tmp_path_factory.mktemp("imports")
    rows = [{"_id": str(number), "text": f"text {number}", "metadata": {"number": number}} for number in range(20)]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = IndexOptions(hybrid=True)
    build_index([folder / "corpus.jsonl"], folder / "index", model=WordEncoder(), options=options)
    return folder / "index"


def imported_by(*arguments: str | Path) -> set[str]:
    """Names of all modules that a process has imported once it has run a command."""
    return set(run_python(COMMAND, *arguments).rsplit("\n", 2)[1].split())


def test_searching_words_needs_neither_a_model_nor_tables(index: Path) -> None:
    imported = imported_by("search", index, "text 7", "--mode", "bm25")
    assert "llm2comp_indexes.lexical.searcher" in imported
    assert not imported & (LEARNING | TABLES | EVALUATION | SATELLITES | {"scipy"})


def test_a_filter_needs_pyarrow_and_no_model(index: Path) -> None:
    imported = imported_by("search", index, "text 7", "--mode", "bm25", "--where", "number > 3")
    assert "pyarrow" in imported
    assert not imported & (LEARNING | EVALUATION | SATELLITES | {"scipy", "datasets"})


@pytest.mark.parametrize("command", ["info", "verify"])
def test_looking_at_an_index_needs_neither_a_model_nor_tables(index: Path, command: str) -> None:
    assert not imported_by("index", command, index) & (LEARNING | TABLES | EVALUATION | SATELLITES | {"scipy"})


def test_comparing_result_files_needs_no_model() -> None:
    imported = imported_by("compare", RESULTS / "llm2comp-tiny.json", RESULTS / "random.json")
    assert not imported & (LEARNING | TABLES | EVALUATION)


def test_encoding_needs_neither_training_nor_evaluation() -> None:
    code = "import llm2comp, sys; llm2comp.load().encode_query('text'); print('\\n' + ' '.join(sys.modules))"
    imported = set(run_python(code).rsplit("\n", 2)[1].split())
    assert "torch" in imported
    assert not imported & (EVALUATION | SATELLITES | {"torchvision"})
