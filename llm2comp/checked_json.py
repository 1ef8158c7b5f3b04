"""JSON files checked before anything in them is used: size, syntax, format version, checksum, and every field.

`JsonFormat` reads a file and names it in errors; the functions take one field each and raise ValueError, which
`JsonFormat.parsing` turns into the error that a user sees.
"""

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from llm2comp.errors import LLM2CompError, one_line

__all__ = [
    "FieldCheck",
    "JsonFormat",
    "check_checksum",
    "check_fields",
    "check_known",
    "signed",
    "take",
    "take_count",
    "take_digest",
    "take_number",
    "take_optional",
]

_T = TypeVar("_T")
FieldCheck = Callable[[Mapping[str, Any], str], object]
"""Takes content and name of a field, and raises ValueError; what it returns does not matter."""
_KINDS = {
    int: "a whole number",
    str: "a string",
    bool: "true or false",
    dict: "an object",
    list: "a list",
}
_MOST_COUNT = 1 << 60


@dataclass(frozen=True, slots=True)
class JsonFormat:
    """A kind of JSON file, whose top level is an object.

    Attributes:
        name: What errors call it, such as "index manifest".
        error: Class of the errors raised.
        fix: What to do about a damaged file, such as "build the index again".
        most_bytes: Larger files are not read.
        version: The format version that is read; None: files carry none.
        version_field: Its field.
        oldest: The oldest format version that is read; None: only `version`.
    """

    name: str
    error: type[LLM2CompError]
    fix: str
    most_bytes: int = 16 << 20
    version: int | None = None
    version_field: str = "format"
    oldest: int | None = None

    def read(self, path: Path) -> dict[str, Any]:
        """The object in the file; its version and fields are not checked yet.

        Raises:
            LLM2CompError: Of class `error`: the file is missing, too large, not UTF-8, not JSON or not an object.
        """
        return self.decode(self.read_bytes(path), path)

    def read_bytes(self, path: Path) -> bytes:
        """The bytes of the file.

        Raises:
            LLM2CompError: Of class `error`: it cannot be read or is larger than `most_bytes`.
        """
        try:
            with path.open("rb") as file:
                text = file.read(self.most_bytes + 1)
        except OSError as error:
            raise self.error(f"{path}: {error.strerror or one_line(error)}; {self.fix}") from error
        if len(text) > self.most_bytes:
            self._refuse(path, f"larger than {self.most_bytes:,} bytes")
        return text

    def decode(self, text: bytes, source: object) -> dict[str, Any]:
        """The object in the text of a file.

        Raises:
            LLM2CompError: Of class `error`: it is not UTF-8, not JSON or not an object.
        """
        try:
            content = json.loads(text.decode("utf-8"))
        except json.JSONDecodeError as error:
            raise self.error(
                f"{source}:{error.lineno}: not JSON ({error.msg}), so not a valid {self.name}; {self.fix}"
            ) from error
        except (ValueError, RecursionError) as error:
            self._refuse(source, f"not JSON ({one_line(error)})", error)
        if not isinstance(content, dict):
            self._refuse(source, f"it holds {_describe(content)}, expected an object")
        return content

    def check_version(self, content: Any, source: object) -> None:
        """Check that the content is an object of the version that is read.

        Raises:
            LLM2CompError: Of class `error`; for a newer version it says how to upgrade.
        """
        version = content.get(self.version_field) if isinstance(content, dict) else None
        if type(version) is not int or version < 1:
            self._refuse(source, f'no format version in "{self.version_field}"')
        newest = self.version or 0
        if not (self.oldest or newest) <= version <= newest:
            newer = version > newest
            raise self.error(
                f"{source}: {self.name} of format {version}, this llm2comp reads "
                + (f"up to {self.version}: pip install --upgrade llm2comp" if newer else f"{self.version}; {self.fix}")
            )

    @contextmanager
    def parsing(self, source: object) -> Iterator[None]:
        """Turn a ValueError (of `take` and the like, or of settings that contradict each other) into an `error`."""
        try:
            yield
        except (ValueError, OverflowError, RecursionError) as error:
            self._refuse(source, str(error), error)

    def _refuse(self, source: object, reason: str, cause: BaseException | None = None) -> NoReturn:
        raise self.error(f"{source}: not a valid {self.name}: {reason}; {self.fix}") from cause


def signed(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content with its checksum as the last field."""
    return {**content, "checksum": _checksum(content)}


def check_checksum(content: Mapping[str, Any]) -> None:
    """Raise ValueError unless the checksum field matches the other fields."""
    if take(content, "checksum", str) != _checksum(content):
        raise ValueError("its content does not match its checksum")


def _checksum(content: Mapping[str, Any]) -> str:
    rest = {name: value for name, value in content.items() if name != "checksum"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def take(content: Mapping[str, Any], name: str, kind: type[_T]) -> _T:
    """The field's value, which must be of exactly this type: true is no int.

    Raises:
        ValueError: The field is missing or of another type. So do all `take_` functions.
    """
    if name not in content:
        raise ValueError(f'"{name[:80]}" is missing')
    value = content[name]
    if type(value) is not kind:
        raise ValueError(f'"{name[:80]}" is {_describe(value)}, expected {_KINDS[kind]}')
    return value


def take_optional(content: Mapping[str, Any], name: str, kind: type[_T]) -> _T | None:
    """The field's value; None where it is null, but not where the field is missing."""
    return None if content.get(name, "") is None else take(content, name, kind)


def take_count(content: Mapping[str, Any], name: str, least: int = 0, most: int = _MOST_COUNT) -> int:
    """A whole number from `least` to `most`."""
    value = take(content, name, int)
    if not least <= value <= most:
        limits = f"{least} to {most}" if most < _MOST_COUNT else f"at least {least}"
        raise ValueError(f'"{name}" is {value}, expected {limits}')
    return value


def take_number(content: Mapping[str, Any], name: str, least: float = 0.0, most: float = math.inf) -> float:
    """A finite number from `least` to `most`."""
    value = content.get(name)
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not math.isfinite(value)
        or not least <= value <= most
    ):
        limits = f"from {least:g} to {most:g}" if most < math.inf else f"of at least {least:g}"
        raise ValueError(f'"{name[:80]}" is {_describe(value)}, expected a number {limits}')
    return float(value)


def take_digest(content: Mapping[str, Any], name: str) -> str:
    """A SHA-256 as 64 hexadecimal digits."""
    value = take(content, name, str)
    if not re.fullmatch("[0-9a-f]{64}", value):
        raise ValueError(f'"{name}" is {_describe(value)}, expected a SHA-256')
    return value


def check_known(content: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    """Raise ValueError if the content has other fields than the known ones."""
    if unknown := sorted(set(content) - set(known)):
        raise ValueError(f"{where} has the unknown field {unknown[0][:60]!r}, of a newer version perhaps")


def check_fields(content: Mapping[str, Any], checks: Mapping[str, FieldCheck]) -> None:
    """Run every field's check, given content and name; raise one ValueError for all that fail."""
    failures = []
    for name, check in checks.items():
        try:
            check(content, name)
        except ValueError as error:
            failures.append(str(error))
    if failures:
        raise ValueError("; ".join(failures))


def _describe(value: Any) -> str:
    """The value in an error: numbers and short strings as they are, others by their type."""
    if value is None:
        return "null"
    if isinstance(value, str | int | float):
        return f"{value!r}"[:60]
    return _KINDS.get(type(value), type(value).__name__)
