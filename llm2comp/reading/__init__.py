"""What a frozen language model does with memory tokens in place of texts: it scores, continues and answers.

Imports `llm2comp.training` and what stands below it.
"""

from llm2comp.reading.compressed import Answer, CompressedReader
from llm2comp.reading.frozen_reader import set_reader

__all__ = ["Answer", "CompressedReader", "set_reader"]
