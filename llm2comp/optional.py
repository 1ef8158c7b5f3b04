"""Whether pictures can be drawn: matplotlib comes with an extra."""

from llm2comp.errors import LLM2CompError

__all__ = ["check_matplotlib"]


def check_matplotlib() -> None:
    """Raises before the work starts what a plot would raise after it.

    Raises:
        LLM2CompError: matplotlib is not installed; the message has the command.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise LLM2CompError('plots need matplotlib, which is not installed: pip install "llm2comp[plot]"') from error
