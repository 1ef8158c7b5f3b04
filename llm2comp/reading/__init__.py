"""What a frozen language model does with memory tokens in place of texts: it answers questions from them.

Imports analysis for the reader itself, and what stands below.
"""

from llm2comp.reading.compressed import Answer, CompressedReader

__all__ = ["Answer", "CompressedReader"]
