"""The result files beside the benchmarks: each carries what it rests on, and nothing of the machine it was made on."""

import json
import re
from typing import Any

import pytest

from tests.paths import RESULTS

BESIDE = {"settings", "versions", "hardware", "commit", "seconds"}


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    """Every result file by name."""
    found = {str(path.relative_to(RESULTS)): path.read_text(encoding="utf-8") for path in RESULTS.rglob("*.json")}
    assert len(found) > 100
    return found


@pytest.fixture(scope="module")
def records(texts: dict[str, str]) -> dict[str, dict[str, Any]]:
    return {name: json.loads(text) for name, text in texts.items()}


def test_they_carry_settings_versions_hardware_commit_and_seconds(records: dict[str, dict[str, Any]]) -> None:
    assert {name: missing for name, record in records.items() if (missing := BESIDE - set(record))} == {}


def test_they_name_no_folder_of_a_machine(texts: dict[str, str]) -> None:
    assert {
        name: found
        for name, text in texts.items()
        if (found := re.findall(r'[" ]/(?:tmp|home|root|work|usr)\b.{,40}', text))
    } == {}


def test_threads_are_those_that_were_asked_for(records: dict[str, dict[str, Any]]) -> None:
    asked = {name: record["settings"]["threads"] for name, record in records.items() if "threads" in record["settings"]}
    assert len(asked) > 5
    assert asked == {name: records[name]["hardware"]["threads"] for name in asked}
