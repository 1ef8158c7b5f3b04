"""Addresses of stores. A password or key in one is in no message and in no representation of it."""

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, cast, get_args
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit

from llm2comp.errors import SettingsError

__all__ = ["STORE_URLS", "StoreKind", "StoreUrl", "parse_store_url"]

StoreKind = Literal["postgresql", "qdrant", "qdrant+https", "qdrant+file", "lancedb", "milvus"]
STORE_URLS = "postgresql://HOST/DATABASE, qdrant://HOST, qdrant+file:///DIR, lancedb:///DIR or milvus:///FILE.db"
"""The forms of an address, for messages and help."""

_DEFAULT_TABLE = "llm2comp"
_LONGEST_TABLE = 48
_TABLE_NAMES = ("table", "collection")
_IN_FILES: tuple[StoreKind, ...] = ("qdrant+file", "lancedb", "milvus")
_SAFE_PARAMETERS = ("host", "port", "user", "dbname")
_NO_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})|%00")
_HOST = re.compile(r"(\[[^\]@]*\]|[^:\[\]@]*)(:[0-9]*)?")


@dataclass(frozen=True, slots=True)
class StoreUrl:
    """Address of a table of vectors. Its text, and messages, are without user, password and key.

    Attributes:
        kind: The store.
        table: Name of the table or collection.
        shown: The address as messages show it.
        path: Folder or file of a store in files; else empty.
        address: The whole address without the table's name, password included: for the driver only.
        secrets: What messages of drivers must not show.
    """

    kind: StoreKind
    table: str
    shown: str
    path: str = ""
    address: str = field(default="", repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)

    def __str__(self) -> str:
        return self.shown

    def absolute(self) -> "StoreUrl":
        """The address, of a store in files by a path that holds in any working directory."""
        return replace(self, path=str(Path(self.path).absolute())) if self.path else self

    def scrub(self, text: str) -> str:
        """The text without the password or key of the address."""
        for secret in self.secrets:
            for form in {secret, quote(secret, safe="")}:
                text = text.replace(form, "***")
        return text


def parse_store_url(text: str) -> StoreUrl:
    """The address, checked.

    `table=NAME` (or `collection=NAME`) among its parameters names the table, `llm2comp` by default. Other parameters
    of a `postgresql://` address go to libpq.

    Raises:
        SettingsError: It is of no store, or malformed. The message has no password.
    """
    try:
        parts = urlsplit(text)
        parameters = parse_qsl(parts.query, keep_blank_values=True)
    except ValueError:
        raise SettingsError(f"the address of the store cannot be read; expected {STORE_URLS}") from None
    scheme = {"postgres": "postgresql", "qdrant+http": "qdrant"}.get(parts.scheme, parts.scheme)
    kind = cast("StoreKind", scheme)
    if scheme not in get_args(StoreKind) or "://" not in text:
        shown = f"{parts.scheme}:// is" if "://" in text else "an address without a scheme is"
        raise SettingsError(f"{shown} no store; expected {STORE_URLS}")
    if not (kind in _IN_FILES or _is_server(parts)) or parts.fragment:
        raise SettingsError(
            f"the address of the {kind} store cannot be read: write @ as %40, # as %23, / as %2F and ? as %3F in a "
            "password, a % that is no such escape as %25, and a port as a number"
        )
    names = [value for name, value in parameters if name in _TABLE_NAMES]
    others = [(name, value) for name, value in parameters if name not in _TABLE_NAMES]
    table = _check_table(names)
    if kind != "postgresql" and others:
        raise SettingsError(f"the address of the {kind} store has the parameter {others[0][0]!r}; it takes only table=")
    user, _, host = parts.netloc.rpartition("@")
    if kind in _IN_FILES:
        if user:
            raise SettingsError(f"the address of the {kind} store names a user or a server; expected {STORE_URLS}")
        path = unquote(parts.netloc + parts.path)
        if not path.strip("/"):
            raise SettingsError(f"{kind}:// names no folder or file; expected {STORE_URLS}")
        path = str(Path(path).expanduser()) if path.startswith("~") else path
        if kind == "milvus" and not path.endswith(".db"):
            raise SettingsError(
                f"milvus://{path}: tables are kept by Milvus Lite, in a file whose name ends in .db: milvus:///FILE.db"
            )
        return StoreUrl(kind, table, f"{kind}://{path}?table={table}", path, f"{kind}://{path}")
    if kind != "postgresql" and not host:
        raise SettingsError(f"{kind}:// names no host; expected {STORE_URLS}")
    kept = [(name, value) for name, value in others if name in _SAFE_PARAMETERS]
    shown = f"{kind}://{host}{parts.path}?{urlencode([*kept, ('table', table)], safe='/')}"
    address = f"{kind}://{parts.netloc}{parts.path}" + (f"?{urlencode(others, quote_via=quote)}" if others else "")
    hidden = [user.partition(":")[2] or (user if kind.startswith("qdrant") else "")]
    hidden += [pair.partition("=")[2] for pair in parts.query.split("&") if "passw" in pair.partition("=")[0]]
    secrets = dict.fromkeys(form for secret in hidden if secret for form in (secret, unquote(secret)))
    return StoreUrl(kind, table, shown, "", address, tuple(secrets))


def _is_server(parts: SplitResult) -> bool:
    """Whether no part of a password can stand where the host, the path or the name of a parameter is shown.

    Drivers show what they cannot decode.
    """
    _, _, hosts = parts.netloc.rpartition("@")
    names = [pair.partition("=")[0] for pair in parts.query.split("&")]
    return (
        parts.netloc.count("@") <= 1
        and not _NO_ESCAPE.search(parts.netloc + parts.query)
        and all(map(_HOST.fullmatch, hosts.split(",")))
        and not any("@" in text for text in (parts.path, *names))
    )


def _check_table(names: list[str]) -> str:
    if len(names) > 1:
        raise SettingsError("the address of the store names two tables; give one table=NAME")
    table = names[0] if names else _DEFAULT_TABLE
    parts = table.split(".")
    plain = all(part and all(letter.isalnum() or letter in "_-" for letter in part) for part in parts)
    if not plain or len(parts) > 2 or len(parts[-1].encode()) > _LONGEST_TABLE:
        raise SettingsError(
            f"table={table!r:.80}: expected letters, digits, _ and -, at most {_LONGEST_TABLE}, with at most one "
            "schema before a dot"
        )
    return table
