"""Addresses of stores: what they mean, and that no password is shown."""

import pickle
from urllib.parse import unquote

import pytest

from llm2comp.errors import SettingsError
from llm2comp_indexes.stores.url import parse_store_url

SECRET = "pa55/w@rd:#"


@pytest.mark.parametrize(
    ("text", "kind", "table", "shown", "path"),
    [
        ("postgresql://host/db", "postgresql", "llm2comp", "postgresql://host/db?table=llm2comp", ""),
        ("postgres://h:5/db?table=s.docs", "postgresql", "s.docs", "postgresql://h:5/db?table=s.docs", ""),
        ("qdrant://h?collection=a-b", "qdrant", "a-b", "qdrant://h?table=a-b", ""),
        ("qdrant+https://h:1", "qdrant+https", "llm2comp", "qdrant+https://h:1?table=llm2comp", ""),
        ("qdrant+file:///a/b%20c", "qdrant+file", "llm2comp", "qdrant+file:///a/b c?table=llm2comp", "/a/b c"),
        ("lancedb://here", "lancedb", "llm2comp", "lancedb://here?table=llm2comp", "here"),
        ("lancedb://./x/y?table=t", "lancedb", "t", "lancedb://./x/y?table=t", "./x/y"),
        ("postgresql://u@h:1,[::1]:2/d", "postgresql", "llm2comp", "postgresql://h:1,[::1]:2/d?table=llm2comp", ""),
        ("postgresql:///d?user=me@x", "postgresql", "llm2comp", "postgresql:///d?user=me%40x&table=llm2comp", ""),
        ("lancedb:///x/a@b", "lancedb", "llm2comp", "lancedb:///x/a@b?table=llm2comp", "/x/a@b"),
        ("milvus:///f.db", "milvus", "llm2comp", "milvus:///f.db?table=llm2comp", "/f.db"),
    ],
)
def test_addresses(text: str, kind: str, table: str, shown: str, path: str) -> None:
    url = parse_store_url(text)
    assert (url.kind, url.table, url.shown, url.path, str(url)) == (kind, table, shown, path, shown)


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://me:pa55%2Fw%40rd%3A%23@host/db",
        "postgresql:///db?host=h&user=me&password=pa55%2Fw%40rd%3A%23&sslpassword=pa55%2Fw%40rd%3A%23",
        "postgresql://me:p%61%35%35%2Fw%40rd%3A%23@host/db",
        "qdrant://:pa55%2Fw%40rd%3A%23@host",
        "qdrant+https://pa55%2Fw%40rd%3A%23@host",
    ],
)
def test_no_password_is_shown(text: str) -> None:
    url = parse_store_url(text)
    for shown in (str(url), repr(url), url.shown, url.scrub(f"no such user {SECRET}, {text}")):
        assert "pa55" not in unquote(shown)
    assert pickle.loads(pickle.dumps(url)) == url
    assert "pa55" in unquote(url.address)


def test_a_path_may_begin_with_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert parse_store_url("lancedb://~/x").path == "/home/me/x"
    assert parse_store_url("milvus://x/~.db").path == "x/~.db"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mysql://me:pa55@host/db", "mysql:// is no store; expected postgresql://"),
        ("docs.db", "an address without a scheme is no store"),
        ("postgresql:db", "an address without a scheme is no store"),
        ("", "an address without a scheme is no store"),
        ("postgresql://me:pa55@w@host/db", "write @ as %40"),
        ("postgresql://me:pa55#w@host/db", "write @ as %40"),
        ("postgresql://me:pa55/w@host/db", "/ as %2F"),
        ("postgresql://me:55/pa55@host/db", "/ as %2F"),
        ("postgresql://me:pa55?w@host/db", "? as %3F"),
        ("postgresql://me:55?pa55@host/db", "? as %3F"),
        ("postgresql://me:pa55%zz@host/db", "as %25"),
        ("postgresql://me:pa55%00@host/db", "as %25"),
        ("postgresql:///db?password=pa55%", "as %25"),
        ("qdrant://pa55/w@host", "/ as %2F"),
        ("qdrant://:pa55@host:x", "a port as a number"),
        ("qdrant://[pa55", "the address of the store cannot be read"),
        ("qdrant://", "qdrant:// names no host"),
        ("lancedb://", "lancedb:// names no folder or file"),
        (
            "milvus://host:19530",
            "milvus://host:19530: tables are kept by Milvus Lite, in a file whose name ends in .db",
        ),
        ("milvus://me:pa55@host:19530", "the address of the milvus store names a user or a server"),
        ("lancedb://:pa55@host/x", "the address of the lancedb store names a user or a server"),
        ("lancedb:///x?mode=pa55", "has the parameter 'mode'; it takes only table="),
        ("lancedb:///x?table=a&collection=b", "names two tables"),
        ("lancedb:///x?table=", "expected letters, digits"),
        ("lancedb:///x?table=a;b", "expected letters, digits"),
        ("lancedb:///x?table=a.b.c", "expected letters, digits"),
        (f"lancedb:///x?table={'a' * 49}", "at most 48"),
    ],
)
def test_what_is_no_address(text: str, message: str) -> None:
    with pytest.raises(SettingsError) as failure:
        parse_store_url(text)
    assert message in str(failure.value)
    assert "pa55" not in str(failure.value)
