"""Where the repository keeps what tests read, and where data beside it lies."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BACKBONE = ROOT / "tests" / "golden" / "backbone"
RESULTS = ROOT / "benchmarks" / "results"
SHARED = Path(os.environ.get("LLM2COMP_SHARED") or ROOT.parent / "shared")
DATA = Path(os.environ.get("LLM2COMP_DATA") or SHARED / "data")
"""Evaluation sets and texts; tests that need them skip where they are absent."""
EVAL = DATA / "eval"
