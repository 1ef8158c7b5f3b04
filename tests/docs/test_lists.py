"""Tables of docs/ that list extras, targets of make, recipes and training stages list all there are."""

import re
import tomllib

from llm2comp.training.recipe_file import shipped_recipes
from tests.docs.pages import DOCS
from tests.paths import ROOT


def _first_column(page: str, heading: str) -> list[str]:
    """Code in the first column of the first table under a heading."""
    text = (DOCS / page).read_text(encoding="utf-8").split(f"\n## {heading}\n")[1]
    rows = re.search(r"(?:^\|.*\n)+", text, re.M)
    assert rows
    return re.findall(r"^\| `([^`]+)` \|", rows[0], re.M)


def test_extras() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert sorted(_first_column("install.md", "Extras")) == sorted(project["optional-dependencies"])


def test_targets_of_make() -> None:
    targets = re.findall(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)[0].split()
    assert sorted(_first_column("install.md", "From a clone")) == sorted(f"make {target}" for target in targets)


def test_recipes() -> None:
    assert sorted(_first_column("training.md", "Recipes")) == shipped_recipes()
