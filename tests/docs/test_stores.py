"""The recipes of docs/stores.md run as written, each where its packages are installed."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, python
from tests.postgres_server import PostgresServer, running_postgres

RECIPES = [block for block in python(DOCS / "stores.md") if "LLM2CompEmbedding" in block]
ANSWER = "Bread rises because yeast makes gas."


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with running_postgres() as server:
        server.execute("CREATE EXTENSION vector")
        yield server


def test_there_is_a_recipe_for_each_framework_and_store() -> None:
    assert len(RECIPES) == 4


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("block", RECIPES, ids=lambda block: re.findall(r"from (\S*(?:qdrant|postgres)\S*)", block)[0])
def test_recipes(
    block: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for module in re.findall(r"^from (\S+) import", block, re.MULTILINE):
        pytest.importorskip(module, reason=f"the recipe needs {module}")
    monkeypatch.chdir(tmp_path)
    if "postgres" in block:
        server: PostgresServer = request.getfixturevalue("postgres")
        address = f"//postgres@/postgres?host={server.sockets}&port={server.port}"
        block = block.replace("//me@host/database", address)
    exec(compile(block, "docs/stores.md", "exec"), {"__name__": "page"})
    assert capsys.readouterr().out == f"{ANSWER}\n"
    assert "psycopg" in sys.modules or "postgres" not in block
