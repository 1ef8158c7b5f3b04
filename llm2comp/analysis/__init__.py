"""Analysis of a model: effective dimension, alignment and uniformity, similarity of memory tokens.

With the frozen reader at hand, also how well it continues a text from the memory tokens alone.
Imports `llm2comp.reading`, `llm2comp.training` and what lies below them.
"""

from llm2comp.analysis.description import Description, describe, describe_embeddings
from llm2comp.analysis.fidelity import Fidelity, measure_fidelity
from llm2comp.analysis.reading import Reading, read_held_out, split_texts, write_samples
from llm2comp.analysis.report import Analysis, AnalysisSettings, ModelAnalysis, analyze
from llm2comp.analysis.vectors import (
    VectorFigures,
    alignment,
    analyze_vectors,
    entropy_rank,
    mean_cosine,
    memory_similarity,
    participation_ratio,
    singular_values,
    uniformity,
)

__all__ = [
    "Analysis",
    "AnalysisSettings",
    "Description",
    "Fidelity",
    "ModelAnalysis",
    "Reading",
    "VectorFigures",
    "alignment",
    "analyze",
    "analyze_vectors",
    "describe",
    "describe_embeddings",
    "entropy_rank",
    "mean_cosine",
    "measure_fidelity",
    "memory_similarity",
    "participation_ratio",
    "read_held_out",
    "singular_values",
    "split_texts",
    "uniformity",
    "write_samples",
]
