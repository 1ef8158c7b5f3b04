"""Benchmarks: quality of text encoders on retrieval, similarity, classification, clustering and more, and their cost.

Also comparisons of result files, the paper's ablation, and the pages generated from result files.
Imports the core and `llm2comp_indexes`; nothing imports it but `llm2comp.cli`.
"""

from llm2comp_benchmarks.evaluate.suites import Suite, read_suite
from llm2comp_benchmarks.evaluate.tasks import evaluate, evaluate_local, read_local
from llm2comp_benchmarks.evaluate.trec import read_run, write_run
from llm2comp_benchmarks.results.record import Samples, TaskResult, write_results
from llm2comp_benchmarks.tasks.classification import ClassificationTask, read_classification
from llm2comp_benchmarks.tasks.clustering import ClusteringTask, read_clustering
from llm2comp_benchmarks.tasks.pair_classification import PairTask, read_pair_classification
from llm2comp_benchmarks.tasks.python_docs import read_python_docs_task
from llm2comp_benchmarks.tasks.reranking import RerankingTask, read_reranking
from llm2comp_benchmarks.tasks.retrieval import RetrievalTask, evaluate_run, read_beir
from llm2comp_benchmarks.tasks.sts import StsTask, read_sts

__all__ = [
    "ClassificationTask",
    "ClusteringTask",
    "PairTask",
    "RerankingTask",
    "RetrievalTask",
    "Samples",
    "StsTask",
    "Suite",
    "TaskResult",
    "evaluate",
    "evaluate_local",
    "evaluate_run",
    "read_beir",
    "read_classification",
    "read_clustering",
    "read_local",
    "read_pair_classification",
    "read_python_docs_task",
    "read_reranking",
    "read_run",
    "read_sts",
    "read_suite",
    "write_results",
    "write_run",
]
