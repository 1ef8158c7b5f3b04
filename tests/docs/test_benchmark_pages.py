"""The tables of all pages are those of the result files."""

import re
from pathlib import Path

import pytest

from llm2comp_benchmarks.report.pages import fill_text, read_results
from tests.docs.pages import INDEX_PAGES, PAGES, name
from tests.paths import RESULTS, ROOT

FILLED = [page for page in PAGES if page not in INDEX_PAGES and "<!-- table " in page.read_text(encoding="utf-8")]
"""Tables of the pages on indexes are checked where these are measured."""


@pytest.mark.parametrize("page", FILLED, ids=name)
def test_every_table_is_what_the_result_files_say(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    filled = fill_text(text, read_results(RESULTS), page.parent)
    assert filled == text, f"the tables are not those of the result files; run: llm2comp report --write {name(page)}"


def test_pages_that_report_results_have_tables() -> None:
    named = ("README.md", "benchmarks/README.md", "docs/stores.md", "docs/scale.md", "docs/performance/encoding.md")
    assert {ROOT / page for page in named} <= set(FILLED)


def test_numbers_of_the_findings_stand_in_the_tables() -> None:
    text = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    findings = [line for line in text.partition("\n## ")[0].splitlines() if line.startswith("- **")]
    tables = "\n".join(re.findall(r"<!-- table .+? -->\n(.*?)<!-- end -->", text, re.DOTALL))
    numbers = [number for line in findings for number in re.findall(r"\d+\.\d+|\d+ %", line)]
    assert len(findings) == 5
    assert [number for number in numbers if number.replace(" ", "") not in tables] == []
