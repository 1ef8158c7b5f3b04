"""Text embeddings from causal language models that learned to compress a text into a few memory tokens.

The core: corpora, backbone, encoder, model, training, export, analysis and the command line. It imports none of the
packages built on it (`llm2comp_indexes`, `llm2comp_benchmarks`, the adapters), except inside `llm2comp.cli`.
Importing it does not import torch; the public names are loaded at first use.
"""

from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Any

import llm2comp.fork  # noqa: F401 - processes forked from now on use one thread of what was imported before

if TYPE_CHECKING:
    from llm2comp.backbone.allocator import keep_freed_memory
    from llm2comp.model import LLM2Comp, load

__all__ = ["LLM2Comp", "__version__", "keep_freed_memory", "load"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """The public name, imported at first use: `llm2comp --help` and the readers run without torch."""
    if name in ("LLM2Comp", "load"):
        return getattr(_import_model(), name)
    if name == "keep_freed_memory":
        from llm2comp.backbone.allocator import keep_freed_memory

        return keep_freed_memory
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names, those included that are not imported yet."""
    return sorted(__all__)


@cache
def _import_model() -> ModuleType:
    from llm2comp.garbage import uncollected

    with uncollected():
        from llm2comp import model
    return model
