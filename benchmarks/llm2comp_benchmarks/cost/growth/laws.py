"""How a cost is expected to grow, fitted to what was measured: a sum of terms, each a known function of the size."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["LAWS", "Law"]


@dataclass(frozen=True, slots=True)
class Law:
    """A cost as a sum of terms.

    Attributes:
        form: The law as people write it; sizes are called as in `terms`.
        terms: Name of each term → its function of the size (the curve's x).
    """

    form: str
    terms: Mapping[str, Callable[[float], float]]

    def fit(self, sizes: Sequence[float], costs: Sequence[float]) -> dict[str, Any]:
        """The law nearest to the costs: least squares of the relative deviations, with no coefficient below 0.

        A coefficient below 0 would make a part of the work give time back; where the best fit asks for one, the term is
        of no account.

        Args:
            sizes: Of the points, at least as many as the law has terms.
            costs: At the sizes, above 0.

        Returns:
            `form`, `coefficients` by term, `fitted` (the law at each size), and `largest_deviation`, of the law from a
            point, as a share of the point.
        """
        from scipy.optimize import nnls

        matrix = np.array([[term(size) for term in self.terms.values()] for size in sizes], dtype=float)
        measured = np.array(costs, dtype=float)
        scale = np.abs(matrix).max(axis=0)  # terms differ by powers of ten
        found, _ = nnls(matrix / scale / measured[:, None], np.ones(len(measured)))
        coefficients = found / scale
        fitted = matrix @ coefficients
        return {
            "form": self.form,
            "coefficients": dict(zip(self.terms, coefficients.tolist(), strict=True)),
            "fitted": fitted.tolist(),
            "largest_deviation": float(np.abs(fitted / measured - 1).max()),
        }


def _constant(size: float) -> float:
    return 1.0


def _linear(size: float) -> float:
    return size


def _square(size: float) -> float:
    return size**2


def growth_with_k(length: int) -> Law:
    """Seconds a text of so many tokens takes with k memory tokens behind it: its tokens go through the layers, and attend to one another."""
    return Law(f"b (n + k) + c (n + k)², n = {length}", {"b": lambda k: length + k, "c": lambda k: (length + k) ** 2})


LAWS = {
    "tokens": Law("a + b tokens", {"a": _constant, "b": _linear}),
    "length": Law("a + b L + c L²", {"a": _constant, "b": _linear, "c": _square}),
    "memory": Law("constant", {"a": _constant}),
    "vocabulary": Law("a + b vocabulary", {"a": _constant, "b": _linear}),
}
"""By curve; that of k depends on the length, see `growth_with_k`."""
