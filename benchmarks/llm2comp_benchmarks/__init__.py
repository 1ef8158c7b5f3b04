"""Quality of text encoders: retrieval, similarity, classification, clustering and more, on sets of one's own or of mteb, one by one or as a suite."""

from llm2comp_benchmarks.classification import ClassificationTask, read_classification
from llm2comp_benchmarks.clustering import ClusteringTask, read_clustering
from llm2comp_benchmarks.evaluation import evaluate, evaluate_local, read_local
from llm2comp_benchmarks.pair_classification import PairTask, read_pair_classification
from llm2comp_benchmarks.python_docs_task import read_python_docs_task
from llm2comp_benchmarks.reranking import RerankingTask, read_reranking
from llm2comp_benchmarks.results import Samples, TaskResult, write_results
from llm2comp_benchmarks.retrieval import RetrievalTask, evaluate_run, read_beir
from llm2comp_benchmarks.sts import StsTask, read_sts
from llm2comp_benchmarks.suites import Suite, read_suite
from llm2comp_benchmarks.trec import read_run, write_run

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
