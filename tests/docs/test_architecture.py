"""ARCHITECTURE.md names every room there is, in the order of the import contracts, and only imports that exist."""

import ast
import re
import tomllib
from itertools import pairwise
from pathlib import Path

from tests.paths import ROOT

PAGE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
PACKAGES = ("llm2comp", "indexes/llm2comp_indexes", "integrations/llm2comp_serve", "benchmarks/llm2comp_benchmarks")
DRAWING, ROOMS = re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)


def _rooms() -> dict[str, list[str]]:
    """Files and folders that the list of rooms names, by package, in its order."""
    rooms: dict[str, list[str]] = {}
    for line in ROOMS.splitlines():
        if line and not line.startswith(" "):
            package = line.split()[0].rstrip("/")
            rooms[package] = []
        elif line:
            names = re.match(r"(?: +[a-z_]+(?:/|\.py)(?= |$))+", line)
            assert names, line
            rooms[package] += names[0].split()
    return rooms


def _file(path: str) -> Path:
    """The file of a path in the tables, where the folder of the index package or of the server is left out."""
    folders = (ROOT, ROOT / "indexes" / "llm2comp_indexes", ROOT / "integrations" / "llm2comp_serve")
    return next((folder / path for folder in folders if (folder / path).exists()), ROOT / path)


def _imports(file: Path) -> set[str]:
    """Modules that a file imports, inside functions too, and those that names of a package come from."""
    modules: set[str] = set()
    for module, names in _from_imports(file):
        modules.add(module)
        for root in (ROOT, ROOT / "indexes"):
            package = root / module.replace(".", "/") / "__init__.py"
            if package.exists():
                modules |= {source for source, given in _from_imports(package) if names & given}
    return modules


def _from_imports(file: Path) -> list[tuple[str, set[str]]]:
    nodes = ast.walk(ast.parse(file.read_text(encoding="utf-8")))
    return [
        (node.module, {alias.name for alias in node.names})
        for node in nodes
        if isinstance(node, ast.ImportFrom) and node.module
    ]


def test_every_path_named_exists() -> None:
    paths = [ROOT / path for path in re.findall(r"[\w./-]*\w/[\w./-]*", DRAWING)]
    paths += [ROOT / package / room for package, rooms in _rooms().items() for room in rooms]
    paths += [_file(path) for path in re.findall(r"`([\w/]+(?:/|\.py))`", PAGE)]
    assert len(paths) > 80
    assert [path for path in paths if not path.exists()] == []


def test_every_room_is_named() -> None:
    named = _rooms()
    assert tuple(named) == PACKAGES
    for package in PACKAGES:
        there = {
            path.name + "/" * path.is_dir()
            for path in (ROOT / package).iterdir()
            if not path.name.startswith("__") and (path.is_dir() or path.suffix == ".py")
        }
        assert set(named[package]) == there - {"cli/"}  # which stands in the drawing, above all packages


def test_rooms_stand_in_the_order_of_the_import_contracts() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    layers = {contract.get("containers", [""])[0]: contract["layers"] for contract in settings["contracts"][:4]}
    for package, prefix in zip(
        PACKAGES, ("", "llm2comp_indexes", "llm2comp_serve", "llm2comp_benchmarks"), strict=True
    ):
        ranks = {
            module.strip().removeprefix("llm2comp."): rank
            for rank, layer in enumerate(layers[prefix])
            for module in layer.split("|")
        }
        order = [ranks[room] for name in _rooms()[package] if (room := name.rstrip("/").removesuffix(".py")) in ranks]
        assert len(order) > 8
        assert order == sorted(order)


def test_every_arrow_between_files_is_an_import() -> None:
    chains = re.findall(r"`[\w/]+\.py`(?:(?: → |, )`[\w/]+\.py`)+", PAGE)  # A → B, C: A imports B and C
    assert len(chains) > 15
    for chain in chains:
        steps = [re.findall(r"`([\w/]+)\.py`", step) for step in chain.split(" → ")]
        for importers, imported in pairwise(steps):
            assert len(importers) == 1, chain
            modules = _imports(_file(f"{importers[0]}.py"))
            for path in imported:
                module = path.replace("/", ".")
                names = {module, f"llm2comp_indexes.{module}", f"llm2comp_serve.{module}"}
                assert names & modules, f"{importers[0]} does not import {path}"
