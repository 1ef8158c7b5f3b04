"""Corpora in object stores. S3 is a local server of moto: pip install "moto[server]" (too much for every test run)."""

import gzip
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from llm2comp.corpus import remote
from llm2comp.corpus.documents import Document
from llm2comp.corpus.read import read_corpus
from llm2comp.corpus.remote import RemotePath, is_remote, to_path
from llm2comp.corpus.size import estimate_documents
from llm2comp.corpus.sources import default_name, name_sources
from llm2comp.errors import CorpusError


def test_paths() -> None:
    path = to_path("s3://lake/a/year=2023/x.jsonl.gz")
    assert isinstance(path, RemotePath)
    assert str(path) == f"{path}" == "s3://lake/a/year=2023/x.jsonl.gz"
    assert (path.scheme, path.key, path.suffix) == ("s3", "lake/a/year=2023/x.jsonl.gz", ".gz")
    assert path.relative_to(to_path("s3://lake/a")).as_posix() == "year=2023/x.jsonl.gz"
    assert to_path(path) is path
    assert to_path(Path("s3://lake/a")) == to_path("s3://lake/a")
    assert not is_remote("folder/s3")
    assert not is_remote("hub:s3")
    assert type(to_path("a.csv")) is type(Path("a.csv"))


@pytest.mark.parametrize(
    ("parts", "fitting", "other"),
    [
        (("*.csv",), ["a.csv"], ["b/a.csv", ".a.csv", "a.csvx"]),
        (("**", "*.csv"), ["a.csv", "b/a.csv", "b/c/a.csv"], ["b/.c/a.csv", ".a.csv"]),
        (("**",), ["a", "b/a"], [".a", "b/.a"]),
        (("y?", "a[12].csv"), ["y1/a1.csv"], ["y/a1.csv", "y1/a3.csv", "y//a1.csv"]),
        (("a[!1].csv",), ["a2.csv"], ["a1.csv"]),
        ((".h", "a+b.csv"), [".h/a+b.csv"], [".h/aab.csv"]),
        ((), ["a", "b/c.x"], [".a", "b/.c"]),
    ],
)
def test_patterns(parts: tuple[str, ...], fitting: list[str], other: list[str]) -> None:
    pattern = re.compile(remote._to_expression(parts))
    assert [name for name in fitting + other if pattern.fullmatch(name)] == fitting


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            OSError("When getting 'a': AWS Error ACCESS_DENIED during HeadObject:\nno body"),
            "credentials are read from AWS",
        ),
        (OSError("Bucket 'lake' not found"), "no such bucket or repository, or it is not yours"),
        (RuntimeError("weather"), "cannot be read: weather$"),
    ],
)
def test_errors_are_one_line(error: Exception, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(scheme: str, bucket: str) -> None:
        raise error

    monkeypatch.setattr(remote, "_file_system", fail)
    for name in ("s3://lake/a.jsonl", "s3://lake/*.csv", "s3://lake"):
        with pytest.raises(CorpusError, match=rf"^{re.escape(name)}: .*{message}") as caught:
            list(read_corpus(name))
        assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def store() -> Iterator[Any]:
    """A client of an empty bucket `lake`."""
    server = pytest.importorskip("moto.server", reason='needs a local S3: pip install "moto[server]"')
    boto3 = pytest.importorskip("boto3")
    running = server.ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    running.start()
    endpoint = "http://{}:{}".format(*running.get_host_and_port())
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": endpoint,
        }.items():
            patch.setenv(name, value)
        client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
        client.create_bucket(Bucket="lake")
        yield client
    running.stop()


@pytest.fixture
def put(store: Any) -> Iterator[Any]:
    keys = list[str]()

    def write(key: str, body: bytes) -> None:
        keys.append(key)
        store.put_object(Bucket="lake", Key=key, Body=body)

    remote._list.cache_clear()
    yield write
    for key in keys:
        store.delete_object(Bucket="lake", Key=key)


def to_jsonl(*rows: dict[str, Any]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def test_files_folders_and_patterns(put: Any, tmp_path: Path) -> None:
    put("a/year=2023/x.jsonl", to_jsonl({"id": "1", "text": "one"}))
    put("a/year=2024/y.csv.gz", gzip.compress(b"id;text;price\n2;two;1.5\n"))
    parquet.write_table(pyarrow.table({"id": [3], "text": ["three"]}), tmp_path / "z.parquet")
    put("a/z.parquet", (tmp_path / "z.parquet").read_bytes())
    put("a/_delta_log/0.json", b"{}")
    put("a/.hidden.jsonl", to_jsonl({"text": "no"}))
    one = Document("1", "", "one", {"year": 2023})
    two = Document("2", "", "two", {"year": 2024, "price": 1.5})
    three = Document("3", "", "three")
    assert list(read_corpus("s3://lake/a/year=2023/x.jsonl")) == [Document("1", "", "one")]
    assert list(read_corpus("s3://lake/a")) == [one, two, three]
    assert list(read_corpus("s3://lake")) == [one, two, three]
    assert list(read_corpus("s3://lake/a/*/*.jsonl")) == [one]
    assert list(read_corpus("s3://lake/**/*.csv.gz")) == [two]
    assert list(read_corpus("s3://lake/a/z.parquet")) == [three]
    assert estimate_documents(["s3://lake/a"]) is None


def test_texts_and_made_ids(put: Any) -> None:
    put("docs/b/two.txt", "Müller".encode("cp1252"))
    put("docs/one.md", b"one")
    assert [(one.id, one.text) for one in read_corpus("s3://lake/docs")] == [
        ("docs/b/two.txt", "Müller"),
        ("docs/one.md", "one"),
    ]
    assert default_name("s3://lake/docs/*/x*.csv") == "docs"
    [source] = name_sources(["s3://lake/docs"])
    assert (source.name, source.root, source.paths) == ("docs", "s3://lake/docs", True)


def test_a_beir_folder(put: Any) -> None:
    put("beir/corpus.jsonl", to_jsonl({"_id": "1", "text": "one"}))
    put("beir/queries.jsonl", to_jsonl({"_id": "q", "text": "one?"}))
    assert list(read_corpus("s3://lake/beir")) == [Document("1", "", "one")]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("s3://missing/a.jsonl", "s3://missing/a.jsonl: there is no bucket s3://missing, or it is not yours"),
        ("s3://missing/*.csv", "there is no bucket s3://missing"),
        ("s3://lake/missing.jsonl", "s3://lake/missing.jsonl: no such file or folder"),
        ("s3://lake/missing/*.csv", r"s3://lake/missing/\*.csv: no file of a known kind matches"),
        ("s3://", "s3:// without a name behind it; expected s3://BUCKET/FOLDER"),
    ],
)
def test_what_is_not_there(name: str, message: str, store: Any) -> None:
    with pytest.raises(CorpusError, match=message):
        list(read_corpus(name))
