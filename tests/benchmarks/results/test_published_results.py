"""The published result files: each has its settings and versions, and no path of the machine that made it."""

import json
import re
from typing import Any

import pytest

from tests.paths import RESULTS

BESIDE = {"settings", "versions", "hardware", "commit", "seconds"}


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    """Every result file by name."""
    texts = {str(path.relative_to(RESULTS)): path.read_text(encoding="utf-8") for path in RESULTS.rglob("*.json")}
    assert len(texts) > 100
    return texts


@pytest.fixture(scope="module")
def records(texts: dict[str, str]) -> dict[str, dict[str, Any]]:
    return {name: json.loads(text) for name, text in texts.items()}


def test_they_carry_settings_versions_hardware_commit_and_seconds(records: dict[str, dict[str, Any]]) -> None:
    assert {name: missing for name, record in records.items() if (missing := BESIDE - set(record))} == {}


def test_they_name_no_folder_of_a_machine(texts: dict[str, str]) -> None:
    assert {
        name: paths
        for name, text in texts.items()
        if (paths := re.findall(r'[" ]/(?:tmp|home|root|work|usr)\b.{,40}', text))
    } == {}


def test_threads_are_those_that_were_asked_for(records: dict[str, dict[str, Any]]) -> None:
    threads = {
        name: record["settings"]["threads"] for name, record in records.items() if "threads" in record["settings"]
    }
    assert len(threads) > 5
    assert threads == {name: records[name]["hardware"]["threads"] for name in threads}
