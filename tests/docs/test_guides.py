"""What docs/indexing.md shows runs as it is written, and its tables say what the code and the measurements say."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.main import get_command
from typer.testing import CliRunner

from llm2comp.cli import app
from llm2comp_benchmarks.cost.index.tables import fill_tables
from llm2comp_indexes.format.vectors import storage_bytes
from llm2comp_indexes.structures.types import default_type, memory_bytes
from tests.paths import ROOT

RESULTS = ROOT / "benchmarks" / "results"
GUIDE = (ROOT / "docs" / "indexing.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(bash|python)\n(.*?)```", GUIDE, re.DOTALL)
COMMANDS = [
    line for language, block in BLOCKS if language == "bash" for line in block.replace("\\\n", " ").splitlines() if line
]
TOPICS = ("travel", "music", "food", "law")


def _words(line: str) -> list[str]:
    words = shlex.split(line, comments=True)
    return words[words.index("llm2comp") + 1 :]


@pytest.fixture
def corpus_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the guide's commands read."""
    rows = [_row(number) for number in range(1, 61)]
    newer = [{**rows[0], "text": "The train is free for children now."}, *(_row(number) for number in range(61, 66))]
    for name, content in (
        ("corpus.jsonl", rows),
        ("newer.jsonl", newer),
        ("queries.jsonl", [{"_id": "q1", "text": "free travel"}]),
    ):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")
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
    for language, block in BLOCKS:
        if language == "python":
            exec(compile(block, "docs/indexing.md", "exec"), space)
            continue
        for line in block.replace("\\\n", " ").splitlines():
            if line and not line.startswith("llm2comp bench"):  # these take long: tests/benchmarks runs a small one
                run = CliRunner().invoke(app, _words(line))
                assert run.exit_code == 0, f"{line}\n{run.output}\n{run.exception!r}"
    assert (corpus_folder / "recall.png").stat().st_size > 1000
    assert (corpus_folder / "run.trec").read_text().startswith("q1 Q0 ")
    assert len(space["found"].rows[0]) == 3


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_shown_exists_with_the_options_shown(line: str) -> None:
    words = _words(line)
    command = get_command(app)
    while isinstance(command, typer.core.TyperGroup):
        command = command.commands[words.pop(0)]
    options = {name for parameter in command.params for name in parameter.opts}
    assert {word for word in words if re.match(r"--?[a-z]", word)} <= options


def test_every_table_is_what_the_code_computes_and_the_results_say() -> None:
    assert re.findall(r"<!-- table (\w+)", GUIDE), "the tables are gone"
    assert fill_tables(GUIDE, RESULTS) == GUIDE, (
        "run: python -m llm2comp_benchmarks.cost.index.tables docs/indexing.md benchmarks/results"
    )


def test_sizes_shown_are_those_of_the_arithmetic() -> None:
    assert abs(storage_bytes(10_000_000, 4096, "int8") - 10_000_000 * 4096) < 1000
    assert "| 10M | 4,096 | 164 GB | 81.9 GB | 41 GB |" in GUIDE
    kind = default_type("ivfpq", rows=100_000_000, dimension=256)
    codes = 100_000_000 * (64 + 8)  # a byte for four components, and the row's number
    assert codes < memory_bytes(kind, rows=100_000_000, dimension=256, store="float32") < 1.02 * codes


def test_every_measured_figure_in_the_tables_is_in_a_result_file() -> None:
    shown = re.findall(r"<!-- table measured (\S+) -->\n(.*?)<!-- end -->", GUIDE, re.DOTALL)
    assert shown, "no measurement is shown"
    for name, table in shown:
        record = json.loads((RESULTS / f"index-{name}.json").read_text(encoding="utf-8"))
        for line in table.strip().splitlines()[2:]:
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            entry = record[cells[0]]
            assert cells[1] == f"`{entry['type']}`"
            assert float(cells[2]) == pytest.approx(entry["recall"], abs=5e-5)
            assert float(cells[3]) == pytest.approx(entry["median_ms"], abs=5e-4)


def test_pictures_shown_are_there_and_small() -> None:
    for name in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", GUIDE):
        assert 0 < (ROOT / "docs" / name).stat().st_size < 100_000, name
