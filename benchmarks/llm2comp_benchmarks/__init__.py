"""Quality of text encoders: retrieval on BEIR folders, sentence similarity, and a retrieval task made of Python docstrings."""

from llm2comp_benchmarks.evaluation import evaluate, evaluate_local, read_local
from llm2comp_benchmarks.python_docs_task import read_python_docs_task
from llm2comp_benchmarks.results import TaskResult, write_results
from llm2comp_benchmarks.retrieval import RetrievalTask, evaluate_run, read_beir
from llm2comp_benchmarks.sts import StsTask, read_sts
from llm2comp_benchmarks.trec import read_run, write_run

__all__ = [
    "RetrievalTask",
    "StsTask",
    "TaskResult",
    "evaluate",
    "evaluate_local",
    "evaluate_run",
    "read_beir",
    "read_local",
    "read_python_docs_task",
    "read_run",
    "read_sts",
    "write_results",
    "write_run",
]
