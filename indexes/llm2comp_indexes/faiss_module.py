"""The `faiss` module, imported at first use, and its number of threads, limited for a block of code."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

from llm2comp.errors import SettingsError
from llm2comp.fork import is_forked
from llm2comp.optional import optional_import

__all__ = ["bounded_threads", "import_faiss", "ivf_of", "read_faiss_file"]


def import_faiss() -> ModuleType:
    """The `faiss` module.

    Raises:
        LLM2CompError: It is not installed; the message has the install command.
    """
    return optional_import("faiss", extra="cpu", needed_by="an index", note=' (or "llm2comp[gpu]", never both)')


def ivf_of(index: Any) -> Any:
    """The IVF index within an index that may transform vectors first, downcast to its class."""
    faiss = import_faiss()
    return faiss.downcast_index(faiss.extract_index_ivf(index))


def read_faiss_file(path: Path, flags: int = 0) -> Any:
    """The FAISS index in the file, which may have any name.

    FAISS for Python turns a name into UTF-8. Where that is not the file's name on disk (bytes that are no UTF-8, a
    locale of another encoding), FAISS opens the file by the descriptor of an open one, where the system names those.

    Args:
        path: The file.
        flags: FAISS's `IO_FLAG_…`; a mapping stays when the file is renamed or removed.

    Raises:
        RuntimeError: FAISS cannot read it.
        OSError: It cannot be opened.
    """
    faiss = import_faiss()
    if os.fsencode(path) == os.fspath(path).encode("utf-8", "replace"):
        return faiss.read_index(os.fspath(path), flags)
    with path.open("rb") as file:
        return faiss.read_index(f"/dev/fd/{file.fileno()}", flags)


_UNCHANGED = nullcontext()


def bounded_threads(threads: int | None) -> AbstractContextManager[None]:
    """Limits FAISS to this number of threads within the block; None changes nothing. A forked process takes one.

    The number is global in the process: calls in other threads see it too.

    Raises:
        SettingsError: `threads` is below 1.
    """
    if threads is not None and threads < 1:
        raise SettingsError(f"threads is {threads}, expected at least 1; leave it out for all cores")
    if is_forked():
        return _bounded(1)  # with more, a thread that was forked while it had others would wait for them forever
    return _UNCHANGED if threads is None else _bounded(threads)


@contextmanager
def _bounded(threads: int) -> Iterator[None]:
    faiss = import_faiss()
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(threads)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
