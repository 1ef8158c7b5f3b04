"""What the pages on indexes show runs as written, and their tables are those of the code and of the measurements."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from llm2comp.cli import app
from llm2comp_benchmarks.cost.index.tables import fill_tables
from llm2comp_indexes.format.vectors import storage_bytes
from llm2comp_indexes.structures.types import default_type, memory_bytes
from tests.docs.pages import INDEX_PAGES, arguments, blocks, joined, name
from tests.paths import RESULTS

TEXTS = {page: page.read_text(encoding="utf-8") for page in INDEX_PAGES}
TOPICS = ("travel", "music", "food", "law")


@pytest.fixture
def corpus_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the commands read."""
    rows = [_row(number) for number in range(1, 61)]
    newer = [{**rows[0], "text": "The train is free for children now."}, *(_row(number) for number in range(61, 66))]
    for file, content in (
        ("corpus.jsonl", rows),
        ("newer.jsonl", newer),
        ("queries.jsonl", [{"_id": "q1", "text": "free travel"}]),
    ):
        (tmp_path / file).write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")
    (tmp_path / "handbook").mkdir()
    (tmp_path / "handbook" / "travel.md").write_text("# Travel\n\nTrains are free for children.\n", encoding="utf-8")
    (tmp_path / "tickets.csv").write_text("id,text\nt1,The lamp does not burn.\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _row(number: int) -> dict[str, Any]:
    topic = TOPICS[number % len(TOPICS)]
    metadata = {
        "year": 2000 + number % 25,
        "lang": ("en", "de", "fr")[number % 3],
        "tags": [topic],
        "draft": number % 5 == 0,
    }
    return {
        "_id": f"doc-{number}",
        "title": f"Note {number} on {topic}",
        "text": f"Ticket {4700 + number} is about {topic}. " * 12,
        "metadata": metadata,
    }


@pytest.mark.slow
def test_all_commands_and_all_code_run_in_their_order(corpus_folder: Path) -> None:
    space: dict[str, Any] = {}
    for page in INDEX_PAGES:
        for language, block in blocks(page):
            if language == "python":
                exec(compile(block, name(page), "exec"), space)
                continue
            for line in joined(block):
                if not line.startswith("llm2comp bench"):  # these take long: tests/benchmarks runs a small one
                    run = CliRunner().invoke(app, arguments(line))
                    assert run.exit_code == 0, f"{name(page)}: {line}\n{run.output}\n{run.exception!r}"
    assert (corpus_folder / "recall.png").stat().st_size > 1000
    assert (corpus_folder / "run.trec").read_text().startswith("q1 Q0 ")
    assert len(space["hits"].rows[0]) == 3


@pytest.mark.parametrize("page", INDEX_PAGES, ids=name)
def test_every_table_is_what_the_code_computes_and_the_results_say(page: Path) -> None:
    assert fill_tables(TEXTS[page], RESULTS) == TEXTS[page], (
        f"run: python -m llm2comp_benchmarks.cost.index.tables {name(page)} benchmarks/results"
    )


def test_every_kind_of_table_is_shown() -> None:
    shown = {kind for text in TEXTS.values() for kind in re.findall(r"<!-- table (\w+)", text)}
    assert shown == {"types", "storage", "memory", "growth", "measured", "ratios"}


def test_sizes_shown_are_those_of_the_arithmetic() -> None:
    assert abs(storage_bytes(10_000_000, 4096, "int8") - 10_000_000 * 4096) < 1000
    assert any("| 10M | 4,096 | 164 GB | 81.9 GB | 41 GB |" in text for text in TEXTS.values())
    kind = default_type("ivfpq", rows=100_000_000, dimension=256)
    codes = 100_000_000 * (64 + 8)  # a byte for four components, and the row's number
    assert codes < memory_bytes(kind, rows=100_000_000, dimension=256, store="float32") < 1.02 * codes


def test_every_measured_figure_in_the_tables_is_in_a_result_file() -> None:
    text = "\n".join(TEXTS.values())
    shown = re.findall(r"<!-- table measured (\S+) -->\n(.*?)<!-- end -->", text, re.DOTALL)
    assert shown, "no measurement is shown"
    for file, table in shown:
        record = json.loads((RESULTS / f"index-{file}.json").read_text(encoding="utf-8"))
        for line in table.strip().splitlines()[2:]:
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            entry = record[cells[0]]
            assert cells[1] == f"`{entry['type']}`"
            assert float(cells[2]) == pytest.approx(entry["recall"], abs=5e-5)
            assert float(cells[3]) == pytest.approx(entry["median_ms"], abs=5e-4)
