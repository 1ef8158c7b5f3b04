"""Outputs in folders whose names are not UTF-8: written, or refused before any work; hints can be pasted."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from llm2comp.atomic import write_output
from llm2comp.cli.output import print_json
from llm2comp.errors import ModelFolderError, quote_path
from llm2comp.export import check_target
from llm2comp.training.run_folder import sole_user
from tests.child_process import run_python

NAMES = [b"caf\xe9 x", b"\xff\xfe", b"a'b\\c\xff1", b"line\nbreak\xe9", "caf\u00e9".encode(), b"it's", b"plain"]


@pytest.fixture
def strange(tmp_path: Path) -> Path:
    folder = tmp_path / os.fsdecode(b"caf\xe9 \xff")
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this file system takes names in UTF-8 only")
    return folder


@pytest.mark.skipif(os.name != "posix", reason="shells of POSIX systems")
@pytest.mark.parametrize("name", NAMES)
def test_a_quoted_path_means_the_same_bytes_to_a_shell(name: bytes) -> None:
    quoted = quote_path(os.fsdecode(name))
    quoted.encode()
    done = subprocess.run(["bash", "-c", f"printf %s {quoted}"], capture_output=True, check=True)
    assert done.stdout == name
    assert "\n" not in quoted


def test_a_path_in_a_result_file_is_read_back(strange: Path) -> None:
    text = json.dumps({"corpus": str(strange), "text": "caf\u00e9"}, ensure_ascii=False)
    write_output(strange / "scores.json", [text])
    assert json.loads((strange / "scores.json").read_text(encoding="utf-8")) == {
        "corpus": str(strange),
        "text": "caf\u00e9",
    }


def test_folders_of_models_are_refused_before_any_work(strange: Path) -> None:
    with pytest.raises(ModelFolderError, match="not UTF-8"):
        check_target(strange / "plain")
    with pytest.raises(ModelFolderError, match="not UTF-8"), sole_user(strange / "run"):
        pytest.fail("begun")
    assert not list(strange.iterdir())


def test_the_reason_in_a_c_locale(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from llm2comp.errors import ModelFolderError
from llm2comp.model_folder import check_name

try:
    check_name(Path(sys.argv[1]))
except ModelFolderError as error:
    print("PYTHONUTF8=1" in str(error))
"""
    environment = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    assert run_python(code, tmp_path / "caf\u00e9", environment=environment) == "True\n"


def test_a_path_that_looks_like_an_option_is_quoted_as_a_path() -> None:
    assert quote_path("-dash") == "./-dash"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_json_on_stdout_can_be_read_in_any_encoding(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    value = {"text": "Größe ☃", "path": os.fsdecode(b"caf\xe9")}
    stdout = io.TextIOWrapper(written, encoding=encoding, errors="backslashreplace")
    monkeypatch.setattr(sys, "stdout", stdout)
    print_json(value)
    stdout.flush()
    assert json.loads(written.getvalue().decode(encoding)) == value
