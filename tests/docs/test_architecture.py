"""ARCHITECTURE.md names paths that exist and every package there is, in the order of the import contracts."""

import re
import tomllib

from tests.paths import ROOT

PAGE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
PACKAGES = ("llm2comp", "indexes/llm2comp_indexes", "benchmarks/llm2comp_benchmarks")
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


def test_every_path_named_exists() -> None:
    paths = re.findall(r"\b[\w./-]+/[\w./-]*", DRAWING) + re.findall(r"`([\w./-]+/[\w./-]*)`", PAGE)
    paths += [f"{package}/{room}" for package, rooms in _rooms().items() for room in rooms]
    assert len(paths) > 60
    assert [path for path in paths if not (ROOT / path).exists()] == []


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
    layers = {contract.get("containers", [""])[0]: contract["layers"] for contract in settings["contracts"][:3]}
    for package, prefix in zip(PACKAGES, ("", "llm2comp_indexes", "llm2comp_benchmarks"), strict=True):
        ranks = {
            module.strip().removeprefix("llm2comp."): rank
            for rank, layer in enumerate(layers[prefix])
            for module in layer.split("|")
        }
        order = [ranks[room] for name in _rooms()[package] if (room := name.rstrip("/").removesuffix(".py")) in ranks]
        assert len(order) > 8
        assert order == sorted(order)
