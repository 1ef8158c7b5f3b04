"""The tables of README.md, benchmarks/README.md and the pages on performance are those of the result files."""

import re
from pathlib import Path

import pytest

from llm2comp_benchmarks.report.pages import fill_text, read_results
from tests.docs.pages import DOCS, name
from tests.paths import RESULTS, ROOT

FILLED = [
    ROOT / "README.md",
    ROOT / "benchmarks" / "README.md",
    *(DOCS / "performance" / f"{page}.md" for page in ("encoding", "training", "other-processor")),
]


@pytest.mark.parametrize("page", FILLED, ids=name)
def test_every_table_is_what_the_result_files_say(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "<!-- table " in text, "the tables are gone"
    filled = fill_text(text, read_results(RESULTS), page.parent)
    assert filled == text, f"the tables are not those of the result files; run: llm2comp report --write {name(page)}"


def test_numbers_of_the_findings_stand_in_the_tables() -> None:
    text = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    findings = [line for line in text.partition("\n## ")[0].splitlines() if line.startswith("- **")]
    tables = "\n".join(re.findall(r"<!-- table .+? -->\n(.*?)<!-- end -->", text, re.DOTALL))
    numbers = [number for line in findings for number in re.findall(r"\d+\.\d+|\d+ %", line)]
    assert len(findings) == 5
    assert [number for number in numbers if number.replace(" ", "") not in tables] == []
