"""Every link of README.md, docs/ and the other pages leads to a file and a heading that are there."""

import re
from pathlib import Path

import pytest
import yaml

from tests.docs.pages import DOCS, PAGES, REPOSITORY, anchors, links, name
from tests.paths import ROOT

EVERY_PAGE = pytest.mark.parametrize("page", PAGES, ids=name)


def _target(page: Path, link: str) -> tuple[Path, str] | None:
    """File and fragment of a link; None for a link to another site."""
    place, _, fragment = link.partition("#")
    if found := re.match(rf"{re.escape(REPOSITORY)}/(?:blob|tree)/main/(.+)", place):
        return ROOT / found[1], fragment
    return None if "://" in place else (page.parent / place if place else page, fragment)


@EVERY_PAGE
def test_files_and_headings_that_are_linked_are_there(page: Path) -> None:
    targets = {link: target for link in links(page) if (target := _target(page, link))}
    assert [link for link, (file, _) in targets.items() if not file.exists()] == []
    headed = {link: target for link, target in targets.items() if target[1]}
    assert [link for link, (file, fragment) in headed.items() if fragment not in anchors(file)] == []


@pytest.mark.parametrize("page", [page for page in PAGES if DOCS in page.parents], ids=name)
def test_pages_of_the_site_link_to_other_files_by_address(page: Path) -> None:
    targets = [target[0] for link in links(page) if "://" not in link and (target := _target(page, link))]
    assert [file for file in targets if DOCS not in file.resolve().parents] == []


def test_the_site_shows_every_page() -> None:
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    shown: list[str] = []
    entries = [settings["nav"]]
    while entries:
        entry = entries.pop()
        if isinstance(entry, str):
            shown.append(entry)
        else:
            entries += entry.values() if isinstance(entry, dict) else entry
    assert sorted(page for page in shown if "://" not in page) == sorted(
        page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")
    )


def test_pictures_are_small() -> None:
    pictures = [path for path in DOCS.rglob("*") if path.suffix in (".png", ".svg")]
    assert pictures
    assert [path.name for path in pictures if not 0 < path.stat().st_size < 200_000] == []
