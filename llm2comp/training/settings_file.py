"""Settings objects from YAML; every error names the file and the field."""

import re
import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from llm2comp.errors import SettingsError, one_line

__all__ = ["build_settings", "parse_yaml", "read_fields", "read_text_file", "to_settings"]

_Settings = TypeVar("_Settings")
_NEAR = 0.65
"""Least likeness of a known field to an unknown one: `warmup` is `warmup_steps`, and `loss` is not `log_steps`."""
_BEGINNING = 4
"""Least length of an unknown field of which a known one may begin with it: `memory` is `memory_tokens`."""


class _Loader(yaml.SafeLoader):
    """Loads plain values and rejects repeated fields, of which YAML would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [
            key.value
            for key, _ in node.value
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge"
        ]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise yaml.constructor.ConstructorError(
                None, None, f"{', '.join(repeated)} is given twice", node.start_mark
            )
        return super().construct_mapping(node, deep)


def read_text_file(path: Path) -> str:
    """Text of a settings file.

    Raises:
        SettingsError: If the file is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: not UTF-8 (byte {error.start + 1}); convert it with iconv") from error


def parse_yaml(text: str, where: str) -> Any:
    """Plain value of a YAML text.

    Raises:
        SettingsError: If the text is not YAML, with a message of one line.
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise SettingsError(f"{where}: {one_line(error)}") from error


def read_fields(text: str, where: str) -> dict[str, Any]:
    """Fields and values of a YAML text.

    Raises:
        SettingsError: If the text is not YAML, or not a mapping of fields to values.
    """
    values = parse_yaml(text, where)
    if not isinstance(values, dict):
        raise SettingsError(
            f"{where}: expected fields with values, such as `steps: 1000`, found {type(values).__name__}"
        )
    return values


def to_settings(kind: type[_Settings], values: Any, *, where: str) -> _Settings:
    """A settings object from plain YAML values.

    Args:
        kind: Dataclass of the settings.
        values: Fields with values.
        where: File and field that error messages begin with.

    Raises:
        SettingsError: All fields that are unknown (with the nearest known one), missing or of the wrong type, and all
            settings that contradict each other.
    """
    problems: list[str] = []
    settings = build_settings(kind, values, where, problems)
    if settings is None:
        raise SettingsError(*problems)
    return settings


def build_settings(kind: type[_Settings], values: Any, where: str, problems: list[str]) -> _Settings | None:
    """A settings object as `to_settings` makes it; None if it has problems, which are appended.

    Fields that are right are checked against each other even if others are not, so that one run names all mistakes.
    """
    if not isinstance(values, Mapping):
        content = "nothing" if values is None else type(values).__name__
        problems.append(f"{where}: expected fields with values, found {content}")
        return None
    before = len(problems)
    hints = get_type_hints(kind)
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    unknown = [str(name) for name in values if name not in known]
    problems += [_unknown(name, list(known), where) for name in unknown]
    needed = {name for name, field in known.items() if field.default is MISSING and field.default_factory is MISSING}
    if missing := sorted(needed - set(values)):
        problems.append(f"{where}: {', '.join(missing)} must be given")
    converted, wrong = dict[str, Any](), [name for each in unknown for name in _near(each, list(known))]
    for name in (name for name in values if name in known):
        faults = len(problems)
        converted[name] = _convert(values[name], hints[name], f"{where}: {name}", problems)
        if len(problems) > faults:
            wrong.append(name)
            del converted[name]
    if not needed <= converted.keys():
        return None
    try:
        settings = kind(**converted)
    except SettingsError as error:
        contradictions = (each for each in error.problems if not _mentions(each, wrong))
        problems += [each if each.startswith(where) else f"{where}: {each}" for each in contradictions]
    return settings if len(problems) == before else None


def _mentions(problem: str, names: Sequence[str]) -> bool:
    """Whether a message is about one of the fields."""
    return any(re.search(rf"\b{re.escape(name)}\b", problem) for name in names)


def _near(name: str, known: list[str]) -> list[str]:
    """The known field that an unknown one probably means, if any: one that is alike, or begins with it."""
    begun = [field for field in known if len(name) >= _BEGINNING and field.startswith(name.lower())]
    return get_close_matches(name, known, n=1, cutoff=_NEAR) or begun[:1]


def _unknown(name: str, known: list[str], where: str) -> str:
    """Message about an unknown field, with the nearest known one, or all if none is near."""
    near = _near(name, known)
    hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
    return f"{where}: unknown field {name}; {hint}"


def _convert(value: Any, hint: Any, where: str, problems: list[str]) -> Any:
    """The value as the type of its field; None, with a problem appended, if it is of another type."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return _convert_to_one(value, [kind for kind in arguments if kind is not type(None)], where, problems)
    if is_dataclass(hint) and isinstance(hint, type):
        return build_settings(hint, value, where, problems)
    if origin is Literal:
        if value not in arguments:
            problems.append(f"{where} is {value!r}; give {' or '.join(map(str, arguments))}")
        return value
    if origin is tuple and isinstance(value, list) and (arguments[-1] is Ellipsis or len(value) == len(arguments)):
        return tuple(_convert(entry, arguments[0], f"{where}[{place}]", problems) for place, entry in enumerate(value))
    if origin in (Mapping, dict) and isinstance(value, Mapping):
        return {str(name): _convert(entry, arguments[1], f"{where}.{name}", problems) for name, entry in value.items()}
    if hint is float and isinstance(value, (int, str)) and not isinstance(value, bool):
        try:
            return float(value)  # YAML reads 1e-4 as text
        except ValueError:
            pass
    if _fits(value, hint):
        return value
    example = f", such as [{value!r}]" if origin is tuple and isinstance(value, str) else ""
    problems.append(f"{where} is {value!r}; expected {_kind(hint)}{example}")
    return None


def _convert_to_one(value: Any, kinds: list[Any], where: str, problems: list[str]) -> Any:
    """The value as the first of several types that it fits."""
    for kind in kinds:
        misfits: list[str] = []
        converted = _convert(value, kind, where, misfits)
        if not misfits:
            return converted
    problems += misfits if len(kinds) == 1 else [f"{where} is {value!r}; expected {' or '.join(map(_kind, kinds))}"]
    return None


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is of a plain type."""
    return hint is Any or (
        isinstance(hint, type) and isinstance(value, hint) and not (hint is int and isinstance(value, bool))
    )


def _kind(hint: Any) -> str:
    """Description of a type for error messages."""
    if get_origin(hint) is Literal:
        return " or ".join(map(str, get_args(hint)))
    if get_origin(hint) is tuple:
        arguments = get_args(hint)
        return "a list" if arguments[-1] is Ellipsis else f"a list of {len(arguments)}"
    if get_origin(hint) in (Mapping, dict):
        return "fields with values"
    return {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}.get(hint, str(hint))
