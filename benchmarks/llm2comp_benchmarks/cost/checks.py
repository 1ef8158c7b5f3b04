"""Checks of a benchmark's settings, made before anything is measured."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llm2comp.errors import SettingsError

__all__ = ["check_at_least", "check_names", "check_peer", "check_precision"]

_PRECISIONS = ("auto", "float32", "bfloat16")


def check_at_least(settings: Any, lowest: Mapping[str, int]) -> None:
    """Raises a `SettingsError` for the first field of `settings` below its lowest value; None passes."""
    for name, least in lowest.items():
        value = getattr(settings, name)
        if value is not None and value < least:
            raise SettingsError(f"{name} is {value}, expected at least {least}")


def check_names(setting: str, names: Sequence[str], known: Sequence[str]) -> None:
    """Raises a `SettingsError` unless all names are known; `setting` names what they were given for."""
    if unknown := sorted(set(names) - set(known)):
        raise SettingsError(f"{setting}: there is no {', '.join(unknown)}; give some of {', '.join(known)}")


def check_precision(precision: str) -> None:
    """Raises a `SettingsError` unless the precision is auto, float32 or bfloat16."""
    if precision not in _PRECISIONS:
        raise SettingsError(f"precision is {precision!r}; give auto, float32 or bfloat16")


def check_peer(python: Path | None, package: str) -> None:
    """Raises a `SettingsError` unless `python` is a program; None, for a peer that is left out, passes."""
    if python is not None and not shutil.which(python):
        raise SettingsError(
            f"{python}: no such program; give the Python of an environment with {package}: bin/python in it"
        )
