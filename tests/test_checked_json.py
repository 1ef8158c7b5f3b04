"""JSON files checked before use: what is refused, and in which words."""

import json
from pathlib import Path
from typing import Any

import pytest

from llm2comp.checked_json import (
    JsonFormat,
    check_checksum,
    check_fields,
    check_known,
    signed,
    take,
    take_count,
    take_digest,
    take_number,
    take_optional,
)
from llm2comp.errors import IndexFolderError

FORMAT = JsonFormat("thing", IndexFolderError, "make it again", most_bytes=100, version=2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'{"a": 1,\n}', r"thing\.json:2: not JSON \(.*\), so not a valid thing; make it again$"),
        (b"\xff\xfe", r"thing\.json: not a valid thing: not JSON \('utf-8' codec .*\); make it again$"),
        (b'{"a": 1}'.decode().encode("utf-16"), "not a valid thing: not JSON"),
        (b"[1]", "not a valid thing: it holds a list, expected an object; make it again$"),
        (b"null", "it holds null, expected an object"),
        (b"[" * 99, "not JSON"),
        (b'{"a": ' + b"9" * 90 + b"}" + b" " * 10, "larger than 100 bytes"),
    ],
)
def test_files_that_hold_no_object_are_refused(tmp_path: Path, text: bytes, message: str) -> None:
    (tmp_path / "thing.json").write_bytes(text)
    with pytest.raises(IndexFolderError, match=message):
        FORMAT.read(tmp_path / "thing.json")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(IndexFolderError, match=r"thing\.json: No such file or directory; make it again$"):
        FORMAT.read(tmp_path / "thing.json")


@pytest.mark.parametrize(
    ("version", "message"),
    [
        (3, "^here: thing of format 3, this llm2comp reads up to 2: pip install --upgrade llm2comp$"),
        (1, "^here: thing of format 1, this llm2comp reads 2; make it again$"),
        (True, '^here: not a valid thing: no format version in "format"; make it again$'),
        (None, "no format version"),
    ],
)
def test_other_versions_are_refused(version: Any, message: str) -> None:
    with pytest.raises(IndexFolderError, match=message):
        FORMAT.check_version({"format": version}, "here")
    FORMAT.check_version({"format": 2}, "here")


def test_a_changed_byte_breaks_the_checksum() -> None:
    content = json.loads(json.dumps(signed({"b": [1.5, None], "a": "é"})))
    check_checksum(content)
    with pytest.raises(ValueError, match="does not match its checksum"):
        check_checksum({**content, "a": "e"})


CONTENT = {
    "text": "x",
    "number": 1.5,
    "count": 3,
    "flag": True,
    "nothing": None,
    "digest": "0" * 64,
    "nan": float("nan"),
}


def test_fields_of_the_right_kind_are_returned() -> None:
    assert (take(CONTENT, "text", str), take_count(CONTENT, "count", 3, 3)) == ("x", 3)
    assert (take_optional(CONTENT, "nothing", str), take_optional(CONTENT, "text", str)) == (None, "x")
    assert (take_number(CONTENT, "count"), take_number(CONTENT, "number", 1.5, 1.5)) == (3.0, 1.5)
    assert take_digest(CONTENT, "digest") == "0" * 64


@pytest.mark.parametrize(
    ("check", "message"),
    [
        (lambda: take(CONTENT, "absent", str), '^"absent" is missing$'),
        (lambda: take(CONTENT, "text", dict), "^\"text\" is 'x', expected an object$"),
        (lambda: take(CONTENT, "flag", int), '^"flag" is True, expected a whole number$'),
        (lambda: take_optional(CONTENT, "absent", str), '^"absent" is missing$'),
        (lambda: take_count(CONTENT, "count", 4, 9), '^"count" is 3, expected 4 to 9$'),
        (lambda: take_count(CONTENT, "number"), '^"number" is 1.5, expected a whole number$'),
        (lambda: take_number(CONTENT, "flag"), '^"flag" is True, expected a number of at least 0$'),
        (lambda: take_number(CONTENT, "nan", most=1.0), '^"nan" is nan, expected a number from 0 to 1$'),
        (lambda: take_number(CONTENT, "nothing"), '^"nothing" is null, expected a number'),
        (lambda: take_digest(CONTENT, "text"), "^\"text\" is 'x', expected a SHA-256$"),
        (lambda: check_known({"colour": 1}, {"size"}, "it"), "^it has the unknown field 'colour', of a newer version"),
        (
            lambda: check_fields(CONTENT, {"a": take_count, "flag": take_count, "count": take_count}),
            '^"a" is missing; "flag" is True, expected a whole number$',
        ),
    ],
)
def test_fields_that_are_wrong_are_named(check: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check()


def test_an_error_of_a_field_names_file_and_fix() -> None:
    with (
        pytest.raises(IndexFolderError, match='^here: not a valid thing: "a" is missing; make it again$'),
        FORMAT.parsing("here"),
    ):
        take({}, "a", int)
