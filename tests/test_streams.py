"""Commands and the library do their work without standard streams: in daemons, under `2>&-`, in pythonw."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.child_process import run_python

SECONDS = 240
"""For a command that loads a model on a busy machine."""

pytestmark = pytest.mark.skipif(os.name != "posix", reason="streams are closed by a POSIX shell")


def command(closed: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """A command run with the streams closed that `closed` names in the shell's words."""
    return subprocess.run(
        ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-m", "llm2comp", *map(os.fspath, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built without any stream, so that the descriptors 0 to 2 were free."""
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "corpus.jsonl").write_text('{"_id": "a", "text": "bread rises"}\n{"_id": "b", "text": "the tides"}\n')
    done = command("<&- >&- 2>&-", "index", "build", folder / "corpus.jsonl", "-o", folder / "index", "--type", "flat")
    assert done.returncode == 0
    return folder / "index"


def test_an_index_built_without_streams_is_whole(index: Path) -> None:
    done = command("2>&-", "index", "verify", index)
    assert done.returncode == 0
    assert "2 documents, " in done.stdout


def test_without_stderr_only_results_are_on_stdout(index: Path) -> None:
    done = command("2>&-", "search", index, "what does bread do?", "-k", "1", "--json")
    assert done.returncode == 0
    assert [hit["id"] for hit in json.loads(done.stdout)] == ["a"]


def test_an_error_without_stderr_keeps_its_exit_code(tmp_path: Path) -> None:
    done = command("2>&-", "index", "info", tmp_path)
    assert (done.returncode, done.stdout) == (1, "")


@pytest.mark.parametrize("closed", [">&-", "<&- >&-", "2>&- >&-"])
def test_a_command_without_stdout_ends_well(closed: str, index: Path) -> None:
    done = command(closed, "index", "info", index)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("missing", ["None", "closed()"])
def test_a_model_is_loaded_without_stderr(missing: str) -> None:
    """As in pythonw, and where a program closed it."""
    code = f"""
import io, sys

def closed():
    stream = io.StringIO()
    stream.close()
    return stream

import llm2comp
sys.stderr = {missing}
print(llm2comp.load(device="cpu").encode_document(["bread"]).shape)
"""
    assert run_python(code) == "(1, 256)\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_messages_that_cannot_be_written_do_not_stop_a_command(index: Path, tmp_path: Path) -> None:
    """A terminal that is gone and a full disk fail alike."""
    (tmp_path / "more.jsonl").write_text('{"_id": "c", "text": "quinces"}\n')
    assert command("2>/dev/full", "index", "add", index, tmp_path / "more.jsonl").returncode == 0
