"""Rankings of a benchmark as TREC run files."""

from pathlib import Path

from llm2comp.corpus import trec
from llm2comp.corpus.trec import read_run
from llm2comp_benchmarks.metrics import Run, ranked

__all__ = ["read_run", "write_run"]


def write_run(path: str | Path, run: Run, tag: str) -> None:
    """Write a run file whole or not at all; documents stand in the order in which trec_eval ranks these scores.

    Raises:
        CorpusError: An id is empty or has white space, which the format cannot hold.
        LLM2CompError: The file cannot be written.
    """
    rankings = ((query, [(name, scores[name]) for name in ranked(scores)]) for query, scores in run.items())
    trec.write_run(path, rankings, tag=tag)
