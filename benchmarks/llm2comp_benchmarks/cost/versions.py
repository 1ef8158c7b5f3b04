"""Versions of the packages that the numbers of an index rest on."""

from importlib.metadata import distributions

__all__ = ["index_versions"]

_PACKAGES = ("faiss-cpu", "faiss-gpu", "pyarrow")


def index_versions() -> dict[str, str]:
    """Versions by package of those that an index depends on and that are installed."""
    return {package.name: package.version for package in distributions() if package.name in _PACKAGES}
