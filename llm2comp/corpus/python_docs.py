"""The documentation of installed Python code as a corpus: one document per module, class or function with a docstring.

Source files are parsed, never imported, so reading a package runs none of its code. Modules written in C have no
source; they are imported and inspected only if they belong to the running interpreter or its standard library.
"""

import ast
import hashlib
import importlib
import inspect
import re
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from importlib.machinery import ExtensionFileLoader
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from llm2comp.corpus.documents import Document

__all__ = ["is_held_out", "read_python_docs", "remove_names", "split_summary"]

_SKIPPED_FOLDERS = frozenset(
    {"site-packages", "dist-packages", "test", "tests", "testing", "idlelib", "lib2to3", "__pycache__"}
)
_Definition = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
_HELD_OUT_OF_256 = 32
_BOUND_ARGUMENT = re.compile(r"\$\w+(, /)?(, )?")  # `$module` and `$self`, which a caller does not pass


def read_python_docs(*, packages: bool = False) -> Iterator[Document]:
    """Documents of the standard library of the running interpreter, in a fixed order, with ids such as `json.dumps`.

    Args:
        packages: Whether every installed package is read too (`python-docs:all`).

    Yields:
        Documents: the title is the qualified name with its arguments, the text is the docstring without indentation.
        Metadata: module, kind (module, class, function), source (path from its root, `:line`).
    """
    seen: set[str] = set()
    roots = [Path(sysconfig.get_path("stdlib"))]
    if packages:
        roots += sorted({Path(sysconfig.get_path(name)) for name in ("purelib", "platlib")})
    for position, root in enumerate(roots):
        for document in _read_root(root):
            if document.id not in seen:
                seen.add(document.id)
                yield document
        if position == 0:
            for document in _read_compiled_modules():
                if document.id not in seen:
                    seen.add(document.id)
                    yield document


def _read_root(root: Path) -> Iterator[Document]:
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root)
        if _SKIPPED_FOLDERS.isdisjoint(relative.parts[:-1]) and all(
            part.isidentifier() for part in relative.parts[:-1]
        ):
            yield from _read_source(path, relative)


def _read_source(path: Path, relative: Path) -> Iterator[Document]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about invalid escapes in the docstrings of other packages
            tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return  # a dangling link, a template or a deliberately broken file: nothing that could be imported
    parts = relative.with_suffix("").parts
    module = ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)
    yield from _walk(tree, module, module, relative)


def _walk(node: _Definition, name: str, module: str, source: Path) -> Iterator[Document]:
    text = ast.get_docstring(node, clean=True)
    if text and text.strip():
        kind = "module" if isinstance(node, ast.Module) else "class" if isinstance(node, ast.ClassDef) else "function"
        line = 1 if isinstance(node, ast.Module) else node.lineno
        metadata: dict[str, Any] = {"module": module, "kind": kind, "source": f"{source.as_posix()}:{line}"}
        arguments = f"({ast.unparse(node.args)})" if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) else ""
        yield Document(name, name + arguments, text, metadata)
    for child in node.body:
        if isinstance(child, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from _walk(child, f"{name}.{child.name}", module, source)


def _read_compiled_modules() -> Iterator[Document]:
    """Docstrings of the standard library's C modules, such as `math` and `builtins`."""
    for name in sorted(sys.stdlib_module_names):
        if name in sys.builtin_module_names or _is_extension(name):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # deprecated modules warn on import
                    module = importlib.import_module(name)
            except ImportError:
                continue  # named by the interpreter but not built on this platform
            yield from _inspect_module(name, module)


def _is_extension(name: str) -> bool:
    spec = find_spec(name)  # finds the file without importing; sysconfig's platstdlib may be a virtual environment
    return spec is not None and isinstance(spec.loader, ExtensionFileLoader)


def _inspect_module(name: str, module: object) -> Iterator[Document]:
    members = [(name, "module", module)]
    for attribute, value in sorted(vars(module).items()):
        if attribute.startswith("_") or getattr(value, "__module__", name) not in (name, None):
            continue
        if inspect.isclass(value):
            members.append((f"{name}.{attribute}", "class", value))
            members += [
                (f"{name}.{attribute}.{method}", "function", function)
                for method, function in sorted(vars(value).items())
                if not method.startswith("_") and callable(function)
            ]
        elif inspect.isroutine(value):
            members.append((f"{name}.{attribute}", "function", value))
    for qualified, kind, value in members:
        text = inspect.getdoc(value) if kind != "module" else getattr(value, "__doc__", None)
        if isinstance(text, str) and text.strip():
            arguments = getattr(value, "__text_signature__", None) if kind == "function" else None
            title = qualified + (_BOUND_ARGUMENT.sub("", arguments) if isinstance(arguments, str) else "")
            yield Document(qualified, title, text, {"module": name, "kind": kind, "source": f"{name} (compiled)"})


def split_summary(text: str) -> tuple[str, str]:
    """Summary (first paragraph, on one line) and body (the rest) of a docstring; the body may be empty."""
    summary, _, body = text.strip().partition("\n\n")
    return " ".join(summary.split()), body.strip()


def remove_names(document: Document, text: str) -> str:
    """The text without the words of the document's qualified name, so that a search by name alone cannot find it."""
    names = sorted({part for part in document.id.split(".") if len(part) > 2}, key=len, reverse=True)
    if not names:
        return text
    pattern = r"(?<!\w)(?:" + "|".join(map(re.escape, names)) + r")(?!\w)"
    return re.sub(r"[ \t]{2,}", " ", re.sub(pattern, "", text)).strip()


def is_held_out(text: str) -> bool:
    """Whether a docstring is in the eighth that is held out for evaluation and never trained on.

    Decided by a hash of the letters and digits of its summary, so the same docstring under another name, in another
    version or with other punctuation is in the same part.
    """
    summary, _ = split_summary(text)
    letters = re.sub(r"[^a-z0-9]+", " ", summary.lower()).strip()
    return hashlib.sha256(letters.encode()).digest()[0] < _HELD_OUT_OF_256
