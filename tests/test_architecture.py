"""Arrows run down: the import contracts of pyproject.toml hold, and every package says what lives there."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.paths import ROOT

PACKAGES = sorted(
    init.parent.relative_to(ROOT)
    for folder in ("llm2comp", "indexes", "benchmarks", "integrations")
    for init in (ROOT / folder).rglob("__init__.py")
)


def test_every_import_contract_is_kept() -> None:
    command = Path(sys.executable).with_name("lint-imports")
    run = subprocess.run([command, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr


def test_every_room_of_the_core_has_a_layer() -> None:
    """The other contracts are exhaustive; this one cannot be, as it orders several packages."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    house = settings["contracts"][0]["layers"]
    layers = {room.strip() for layer in house for room in layer.split("|")}
    rooms = {
        path.stem for path in (ROOT / "llm2comp").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert {f"llm2comp.{room}" for room in rooms - {"__init__"}} == {
        layer for layer in layers if layer.startswith("llm2comp.")
    }


@pytest.mark.parametrize("package", PACKAGES, ids=str)
def test_every_package_says_what_lives_there_and_what_it_may_import(package: Path) -> None:
    text = ast.get_docstring(ast.parse((ROOT / package / "__init__.py").read_text(encoding="utf-8"))) or ""
    assert text.count(".") >= 2, "two or three sentences"
    assert "mports " in text, "a sentence on what the package may import"
