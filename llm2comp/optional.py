"""Packages that only an extra installs, imported at first use."""

from importlib import import_module
from types import ModuleType

from llm2comp.errors import LLM2CompError, one_line

__all__ = ["check_matplotlib", "optional_import"]


def optional_import(
    module: str, *, extra: str, needed_by: str, note: str = "", error_type: type[Exception] = LLM2CompError
) -> ModuleType:
    """The module, or an error with the command that installs it.

    Args:
        module: Dotted name, such as "matplotlib.figure".
        extra: Extra of llm2comp that installs its package.
        needed_by: What cannot work without it; the subject of the message.
        note: Appended to the command.
        error_type: Class of the error.

    Raises:
        LLM2CompError: The module is not installed or cannot be imported (`error_type` where that is given).
    """
    try:
        return import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        absent = isinstance(error, ModuleNotFoundError) and error.name is not None and module.startswith(error.name)
        state = "is not installed" if absent else f"cannot be imported ({one_line(error)})"
        raise error_type(
            f'{needed_by} needs {package}, which {state}: pip install "llm2comp[{extra}]"{note}'
        ) from error


def check_matplotlib() -> None:
    """Checks that pictures can be drawn, before the work whose result they would show.

    Raises:
        LLM2CompError: matplotlib is not installed; the message has the command.
    """
    optional_import("matplotlib.figure", extra="plot", needed_by="a plot")
