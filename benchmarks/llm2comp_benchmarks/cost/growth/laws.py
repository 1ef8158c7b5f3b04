"""How a cost is expected to grow: a sum of terms, each a known function of the size, fitted to measurements."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["LAWS", "Law"]


@dataclass(frozen=True, slots=True)
class Law:
    """A cost as a sum of terms.

    Attributes:
        form: The law as a formula.
        terms: Function of the size (the curve's x) by coefficient.
    """

    form: str
    terms: Mapping[str, Callable[[float], float]]

    def fit(self, sizes: Sequence[float], costs: Sequence[float]) -> dict[str, Any]:
        """The law nearest to the costs: least squares of the relative deviations, no coefficient below 0.

        A coefficient below 0 would mean that some work gives time back; where the best fit has one, it is set to 0.

        Args:
            sizes: Of the points, at least as many as the law has terms.
            costs: At these sizes, above 0.

        Returns:
            `form`, `coefficients` by term, `fitted` (the law at each size), and `largest_deviation` (of the law from a
            point, as a share of the point).
        """
        from scipy.optimize import nnls

        matrix = np.array([[term(size) for term in self.terms.values()] for size in sizes], dtype=float)
        measured = np.array(costs, dtype=float)
        scale = np.abs(matrix).max(axis=0)  # terms differ by powers of ten
        scaled, _ = nnls(matrix / scale / measured[:, None], np.ones(len(measured)))
        coefficients = scaled / scale
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
    """Seconds that texts of `length` tokens take with k memory tokens behind each.

    All n + k tokens go through the layers (b) and attend to one another (c).
    """
    return Law(f"b (n + k) + c (n + k)², n = {length}", {"b": lambda k: length + k, "c": lambda k: (length + k) ** 2})


LAWS = {
    "tokens": Law("a + b tokens", {"a": _constant, "b": _linear}),
    "length": Law("a + b L + c L²", {"a": _constant, "b": _linear, "c": _square}),
    "memory": Law("constant", {"a": _constant}),
    "vocabulary": Law("a + b vocabulary", {"a": _constant, "b": _linear}),
}
"""Laws by curve; that of the curve `k` depends on the length, see `growth_with_k`."""
