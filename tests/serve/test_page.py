# ruff: noqa: E402  # what may be absent is looked for first
"""The search page in a real browser: Debian's chromium, driven by playwright."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

pytest.importorskip("fastapi")
playwright = pytest.importorskip("playwright.sync_api")

import httpx

from llm2comp_indexes import IndexOptions, build_index
from llm2comp_serve import ServeSettings, create_app
from tests.serve.server import serving

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
LONG = "bread and butter " * 6_200
EVIL = "<script>document.title = 'broken'</script><img src=x onerror=\"document.title='broken'\"> bread"
DOCUMENTS = [
    {"id": "d0", "title": "Baking bread", "text": "How to bake bread: flour, water, salt.", "metadata": {"year": 2001}},
    {"id": "d1", "title": "مرحبا", "text": "هذا نص عربي عن الخبز في المدينة القديمة"},
    {"id": "d2", "title": "<b>Evil</b>", "text": EVIL, "metadata": {"note": "<i>markup</i>"}},
    {"id": "d3", "title": "Long", "text": LONG},
    *({"id": f"n{number}", "title": f"Note {number}", "text": f"Bread of day {number}"} for number in range(60)),
]
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine"),
]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("page") / "notes"
    build_index(DOCUMENTS, folder, options=IndexOptions(hybrid=True))
    with serving(create_app(ServeSettings(indexes={"notes": folder}))) as url:
        yield f"{url}/"


@pytest.fixture(scope="module")
def rescored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of an index with vectors of memory tokens."""
    folder = tmp_path_factory.mktemp("page") / "memory"
    build_index(DOCUMENTS[:3], folder, options=IndexOptions(memory_vectors="int8"))
    with serving(create_app(ServeSettings(indexes={"memory": folder}))) as url:
        yield f"{url}/"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def visit(browser: Any, address: str) -> Iterator[Callable[..., Any]]:
    """Opens the page with these fields in its address, and waits for its answer."""
    contexts = []

    def open_page(
        *, wait: str | None = "#status:has-text('result')", options: Any = None, at: str = address, **fields: Any
    ) -> Any:
        context = browser.new_context(**(options or {}))
        contexts.append(context)
        page = context.new_page()
        page.goto(f"{at}?{urlencode(fields)}")
        if wait:
            page.wait_for_selector(wait)
        return page

    yield open_page
    for context in contexts:
        context.close()


def test_hits_have_title_score_marks_and_metadata(visit: Callable[..., Any]) -> None:
    page = visit(q="baking bread", k=3)
    first = page.locator("article").first
    assert first.locator("h3").inner_text() == "1. Baking bread"
    assert float(first.locator(".score").inner_text()) > 0
    assert first.locator("p mark").all_inner_texts() == ["bake", "bread"]
    assert first.locator("dl").inner_text().split() == ["id", "d0", "year", "2001"]
    about = page.locator("section p.quiet").first.inner_text()
    assert "cosine" in about
    assert "search" in about
    assert "ms" in about


@pytest.mark.parametrize(("k", "status"), [(1, "1 result"), (50, "50 results")])
def test_number_of_hits(visit: Callable[..., Any], k: int, status: str) -> None:
    page = visit(q="bread", k=k)
    assert page.locator("#status").inner_text() == status
    assert page.locator("article").count() == k


def test_no_hit(visit: Callable[..., Any]) -> None:
    page = visit(q="zebra", mode="bm25")
    assert page.locator("#status").inner_text() == "0 results"
    assert page.locator("#columns").inner_text().endswith("No result.")
    assert page.locator("#map").is_hidden()


def test_text_is_never_markup(visit: Callable[..., Any]) -> None:
    page = visit(q="evil script bread", mode="bm25", k=1)
    article = page.locator("article").first
    assert article.locator("h3").inner_text() == "1. <b>Evil</b>"
    assert EVIL in article.locator("p").inner_text()
    assert "<i>markup</i>" in article.inner_text()
    assert page.locator("main script, main img, main b, main i").count() == 0
    assert page.title() == "evil script bread – Search"


def test_question_is_never_markup(visit: Callable[..., Any]) -> None:
    page = visit(q="<img src=x onerror=alert(1)>", k=1)
    assert page.locator("img").count() == 0
    assert page.input_value("#query") == "<img src=x onerror=alert(1)>"


def test_right_to_left(visit: Callable[..., Any]) -> None:
    page = visit(q="الخبز", mode="bm25", k=1)
    text = page.locator("article p").first
    assert text.evaluate("element => getComputedStyle(element).direction") == "rtl"
    assert text.locator("mark").all_inner_texts() == ["الخبز"]


def test_long_document_is_folded(visit: Callable[..., Any]) -> None:
    page = visit(q="butter", mode="bm25", k=1)
    text = page.locator("article p").first
    assert len(text.inner_text()) < 800
    page.get_by_role("button", name="Show all 105,400 characters").click()
    assert len(text.text_content()) == len(LONG)


def test_two_modes_side_by_side(visit: Callable[..., Any]) -> None:
    page = visit(q="bread", beside="hybrid", k=2)
    left, right = page.locator("#columns > section").all()
    assert left.bounding_box()["x"] < right.bounding_box()["x"]
    assert left.locator("h2").inner_text() == "dense: by meaning"
    assert "0.7 of words" in right.inner_text()


def test_modes_that_rescore_are_offered_with_memory_vectors_only(visit: Callable[..., Any], rescored: str) -> None:
    assert visit(q="bread").locator("option[value$=maxsim]").count() == 0
    page = visit(at=rescored, q="bread", beside="dense+maxsim", k=2)
    assert page.locator("#mode option[value$=maxsim]").count() == 2
    right = page.locator("#columns > section").nth(1)
    assert right.locator("h2").inner_text() == "dense, then MaxSim"
    assert "MaxSim: sum of the best cosines" in right.inner_text()
    scores = [float(score) for score in right.locator(".score").all_inner_texts()]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > 1, "a sum of cosines"


def test_map_shows_the_hits_among_others(visit: Callable[..., Any]) -> None:
    page = visit(q="bread", k=4)
    page.wait_for_selector("#map:not([hidden])")
    assert page.locator("svg .hit").count() == 4
    assert page.locator("svg .other").count() == len(DOCUMENTS)


def test_address_is_the_search(visit: Callable[..., Any]) -> None:
    page = visit(wait=None)
    page.locator("#index option").wait_for(state="attached")
    page.fill("#query", "bread of day 7")
    page.select_option("#mode", "bm25")
    page.fill("#where", "year == 2001")
    page.press("#query", "Enter")
    page.wait_for_selector("#status:has-text('1 result')")
    other = page.context.new_page()
    other.goto(page.url)
    other.wait_for_selector("#status:has-text('1 result')")
    assert other.input_value("#where") == "year == 2001"
    assert other.locator("article h3").inner_text() == "1. Baking bread"


def test_back_goes_to_the_search_before(visit: Callable[..., Any]) -> None:
    page = visit(q="bread", index="notes", k=3)
    page.fill("#where", "year == 2001")
    page.press("#where", "Enter")
    page.wait_for_selector("#status:has-text('1 result')")
    page.go_back()
    page.wait_for_selector("#status:has-text('3 results')")
    assert page.input_value("#where") == ""


@pytest.mark.parametrize("field", ["index", "mode"])
def test_an_address_of_what_is_not_served(visit: Callable[..., Any], field: str) -> None:
    page = visit(wait="#problem:not([hidden])", q="bread", **{field: "gone"})
    assert page.locator("#problem").inner_text() == f"There is no {field} gone here: choose another."
    assert page.locator("article").count() == 0
    page.press("#query", "Enter")
    page.wait_for_selector("#status:has-text('10 results')")


def test_keyboard(visit: Callable[..., Any]) -> None:
    page = visit(q="bread", k=3)
    page.locator("#query").evaluate("element => element.blur()")
    page.keyboard.press("j")
    page.keyboard.press("j")
    focused = "document.activeElement.querySelector('h3').textContent.slice(0, 2)"
    assert page.evaluate(focused) == "2."
    page.keyboard.press("k")
    assert page.evaluate(focused) == "1."
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "query"


def test_error_of_the_filter_is_shown(visit: Callable[..., Any]) -> None:
    page = visit(q="bread", where="yeer > 3", wait="#problem:not([hidden])")
    assert 'did you mean "year"?' in page.locator("#problem").inner_text()
    assert page.locator("article").count() == 0


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"status": 500, "body": "oops"}, "The server failed (status 500)."),
        ({"status": 429, "json": {"error": {"message": "too many texts are waiting"}}}, "too many texts are waiting"),
        (None, "The server cannot be reached. Is it running?"),
    ],
)
def test_failing_server(visit: Callable[..., Any], answer: Any, message: str) -> None:
    page = visit(q="bread", k=1)
    page.route("**/v1/search", lambda route: route.fulfill(**answer) if answer else route.abort())
    page.press("#query", "Enter")
    page.wait_for_selector("#problem:not([hidden])")
    assert page.locator("#problem").inner_text() == message
    page.unroute("**/v1/search")
    page.press("#query", "Enter")
    page.wait_for_selector("article")
    assert page.locator("#problem").is_hidden()


def test_slow_answer_of_an_older_question_is_dropped(visit: Callable[..., Any]) -> None:
    page = visit(q="bread", k=1)
    held: list[Any] = []
    page.route("**/v1/search", lambda route: held.append(route) if not held else route.continue_())
    page.fill("#query", "zebra")
    page.press("#query", "Enter")
    page.wait_for_selector("body.busy")
    assert page.locator("#status").inner_text() == "Searching …"
    page.fill("#query", "baking")
    page.press("#query", "Enter")
    page.wait_for_selector("#status:has-text('1 result')")
    assert page.title() == "baking – Search"
    assert page.locator("body.busy").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_accessibility_violation(visit: Callable[..., Any], scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    page = visit(q="bread", beside="bm25", k=5, options={"color_scheme": scheme, "bypass_csp": True})
    page.wait_for_selector("#map:not([hidden])")
    report = axe.Axe().run(page)
    assert report.violations_count == 0, report.generate_report()


def test_phone_needs_no_scrolling_sideways(visit: Callable[..., Any]) -> None:
    page = visit(q="bread", beside="bm25", k=3, options={"viewport": {"width": 360, "height": 740}})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.wait_for_selector("#map:not([hidden])")
    assert page.locator("svg text").first.evaluate("element => element.getBoundingClientRect().height") >= 10


def test_key_is_asked_for(browser: Any, tmp_path: Path) -> None:
    build_index(DOCUMENTS[:2], tmp_path / "notes")
    app = create_app(ServeSettings(indexes={"notes": tmp_path / "notes"}, api_keys=("secret",)))
    with serving(app) as url:
        page = browser.new_page()
        page.goto(f"{url}/?q=bread")
        page.wait_for_selector("#problem:not([hidden])")
        assert "a key is needed" in page.locator("#problem").inner_text()
        page.fill("#key", "secret")
        page.press("#query", "Enter")
        page.wait_for_selector("#status:has-text('2 results')")
        assert page.input_value("#query") == "bread"
        page.close()


def test_page_is_small_and_loads_nothing_from_elsewhere(browser: Any, address: str) -> None:
    page = browser.new_page()
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto(f"{address}?q=bread")
    page.wait_for_selector("#map:not([hidden])")
    page.close()
    assert all(url.startswith((address, "data:")) for url in requests)
    sizes = [len(httpx.get(address + name).content) for name in ("", "page.css", "page.js")]
    assert sum(sizes) < 60_000
