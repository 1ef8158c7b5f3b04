"""The result files of all cost benchmarks say what their numbers rest on, and name no folder of a machine."""

import json
import re
from pathlib import Path

import pytest

from tests.paths import RESULTS

PARTS = {
    "encode": "ratios",
    "train": "ratios",
    "index": "settings",
    "growth": "curves",
    "stream": "restart",
    "serve": "cases",
}
FILES = [(file, part) for kind, part in PARTS.items() for file in sorted(RESULTS.glob(f"{kind}-*.json"))]


@pytest.mark.parametrize(("file", "part"), FILES, ids=[file.stem for file, _ in FILES])
def test_results_carry_what_they_rest_on_and_no_folder_of_a_machine(file: Path, part: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert {part, "settings", "versions", "hardware", "commit", "seconds"} <= set(json.loads(text))
    assert not re.search(r'[" ]/(?:tmp|home|root|work|usr)\b', text)
