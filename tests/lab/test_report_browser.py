"""The pages in a real browser: nothing overflows, nothing is fetched, everything is legible."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import pytest

from mmxx.lab.report import render_review, render_run

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not on the path"),
]
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SCREENS = [(width, scheme) for width in (400, 1400) for scheme in ("light", "dark")]
LONG = "x" * 400 + " " + "a_very_long_name_without_any_blank" * 9

# The text's colour against the first background below it that is not transparent.
CONTRASTS = """
selector => {
  const rgb = text => text.match(/[\\d.]+/g).map(Number);
  const luminance = colour => {
    const [r, g, b] = colour.slice(0, 3).map(value => {
      value /= 255;
      return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  return [...document.querySelectorAll(selector)].map(element => {
    let below = element;
    while ((rgb(getComputedStyle(below).backgroundColor)[3] ?? 1) === 0) {
      below = below.parentElement;
    }
    const back = luminance(rgb(getComputedStyle(below).backgroundColor));
    const front = luminance(rgb(getComputedStyle(element).color));
    const ratio = (Math.max(front, back) + 0.05) / (Math.min(front, back) + 0.05);
    return [element.className + ': ' + element.textContent.trim().slice(0, 40), ratio];
  });
}
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield running
        running.close()


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Any]]:
    """Open a page of the disk; whatever it asks for and complains of is in ``page.asked``."""
    contexts = []

    def open_page(path: Path, width: int = 1400, scheme: str = "light") -> Any:
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, java_script_enabled=True
        )
        contexts.append(context)
        page = context.new_page()
        page.asked = []
        page.on("request", lambda request: page.asked.append(request.url))
        page.on("console", lambda message: page.asked.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: page.asked.append(f"error: {error}"))
        page.goto(path.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()


@pytest.fixture(params=["run", "review"])
def path(request: pytest.FixtureRequest) -> Path:
    if request.param == "run":
        return render_run(request.getfixturevalue("run_folder"))
    return render_review(request.getfixturevalue("review_folder"))


def _fits(page: Any) -> bool:
    return page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize(("width", "scheme"), SCREENS)
def test_a_page_fits_asks_for_nothing_and_is_legible(
    visit: Callable[..., Any], path: Path, width: int, scheme: str
) -> None:
    page = visit(path, width, scheme)
    assert page.evaluate("innerWidth") == width
    assert _fits(page)
    asked = [url for url in page.asked if not url.startswith("data:")]
    assert asked == [path.as_uri()]
    chips = page.evaluate(CONTRASTS, ".chip")
    assert len(chips) >= 4
    words = "h1, h2, h3, p, dt, dd, li, a, th, td, figcaption, .ledger b, .ends span, .unit"
    for label, ratio in chips + page.evaluate(CONTRASTS, words):
        assert ratio >= 4.5, (label, ratio)
    for label, ratio in page.evaluate(CONTRASTS, "figure svg"):
        assert ratio >= 4.5, (label, ratio)


def test_a_page_fits_any_screen(visit: Callable[..., Any], path: Path) -> None:
    page = visit(path)
    for width in (320, 641, 800, 1023, 1024, 1119, 1121, 2560):
        page.set_viewport_size({"width": width, "height": 700})
        assert _fits(page), width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_marks_stand_out_from_their_ground(
    visit: Callable[..., Any], run_folder: Path, scheme: str
) -> None:
    page = visit(render_run(run_folder), 1400, scheme)
    marks = """
    selector => [...document.querySelectorAll(selector)].map(element => {
      const ground = getComputedStyle(element.closest('.verdict')).backgroundColor;
      return [getComputedStyle(element).backgroundColor, ground];
    })
    """
    pairs = page.evaluate(marks, ".meter i")
    assert len(pairs) == 4
    for pair in pairs:
        light, dark = sorted((_luminance(colour) for colour in pair), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 3, pair


def _luminance(colour: str) -> float:
    channels = [int(value) / 255 for value in re.findall(r"\d+", colour)[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_every_link_leads_somewhere(visit: Callable[..., Any], path: Path) -> None:
    page = visit(path)
    links = page.eval_on_selector_all("a[href]", "all => all.map(a => a.href)")
    assert len(links) >= 5
    for link in links:
        assert link.startswith("file://"), link
        url = urlparse(link)
        assert Path(unquote(url.path)).is_file(), link
        if url.fragment:
            assert page.locator(f"[id='{unquote(url.fragment)}']").count() == 1, link


def test_from_the_index_to_a_system_and_from_the_ledger_to_a_claim(
    visit: Callable[..., Any], review_folder: Path
) -> None:
    page = visit(render_review(review_folder))
    page.click("text=SIREN: sine networks")
    assert page.locator("h1").inner_text() == "SIREN: sine networks"
    page.click(".ledger a >> nth=2")
    assert page.url.endswith("siren/report.html#c3")
    assert page.locator("#c3").bounding_box()["y"] < 900


@pytest.mark.parametrize("width", [400, 1400])
def test_wide_content_scrolls_in_its_own_box(
    visit: Callable[..., Any], run_folder: Path, width: int
) -> None:
    page = visit(render_run(run_folder), width)
    scroll = "all => all.map(box => box.scrollWidth > box.clientWidth)"
    assert any(page.eval_on_selector_all(".scroll", scroll))
    for box in page.locator("figure svg, figure img").all():
        shape = box.bounding_box()
        assert shape["x"] >= 0
        assert shape["x"] + shape["width"] <= width
        assert shape["width"] > 100
        assert shape["height"] > 60


@pytest.mark.parametrize("width", [400, 1400])
def test_long_words_in_every_field_do_not_widen_the_page(
    visit: Callable[..., Any], run_folder: Path, review_folder: Path, width: int
) -> None:
    def longer(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: longer(inner) for key, inner in value.items()} | {LONG: LONG}
        if isinstance(value, list):
            return [longer(inner) for inner in value]
        return LONG if isinstance(value, str) else value

    for name in ("run.json", "claims.json"):
        for folder in (run_folder, review_folder / "siren"):
            content = json.loads((folder / name).read_text())
            files = content.get("contents", [])
            content = longer(content)
            for item, long in zip(files, content.get("contents", []), strict=True):
                long["file"] = item["file"]
            (folder / name).write_text(json.dumps(content))
    review = json.loads((review_folder / "review.json").read_text())
    folders = [entry["folder"] for entry in review["entries"]]
    review = longer(review)
    for folder, entry in zip(folders, review["entries"], strict=True):
        entry["folder"] = folder
    (review_folder / "review.json").write_text(json.dumps(review))
    (run_folder / "tables" / "arms.csv").write_text(f"{LONG},b\n{LONG},2\n")
    for path in (render_run(run_folder), render_review(review_folder)):
        assert _fits(visit(path, width)), path.name


def test_the_index_is_a_table_when_wide_and_cards_when_narrow(
    visit: Callable[..., Any], review_folder: Path
) -> None:
    path = render_review(review_folder)
    wide, narrow = visit(path, 1400), visit(path, 400)
    assert wide.locator("thead").is_visible()
    assert not narrow.locator("thead").is_visible()
    row = "tbody >> nth=0 >> tr >> nth=0 >> td.ours"
    assert wide.locator(row).bounding_box()["x"] > 700
    places = [
        narrow.locator(f"tbody >> nth=0 >> tr >> nth=0 >> {cell}").bounding_box()["y"]
        for cell in (".system", ".says", ".outcome", ".ours", "td[data-name=Baseline]")
    ]
    assert places == sorted(set(places))  # the verdict stands before the figures
    shown = "element => getComputedStyle(element, '::before').content"
    assert narrow.locator(row).evaluate(shown) == '"Ours"'
    assert wide.locator(row).evaluate(shown) == "none"


def test_scripts_of_a_hostile_run_do_nothing(
    visit: Callable[..., Any], run_folder: Path, change: Callable[..., None]
) -> None:
    attack = "\"'><img src=x onerror=document.title='taken'><script>document.title='taken'</script>"
    svg = f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"
    onload="document.title='taken'"><script>document.title='taken'</script>
    <image href="http://127.0.0.1:9/a.png" width="9" height="9"/><text>{"&lt;b&gt;"}</text></svg>"""
    (run_folder / "figures" / "fits.svg").write_text(svg)
    change(run_folder / "run.json", notes=[attack], reason=attack, config={attack: attack})
    path = render_run(run_folder)
    page = visit(path)
    assert "taken" not in page.title()
    assert [url for url in page.asked if not url.startswith("data:")] == [path.as_uri()]
    # The policy of the page holds back even what would have slipped through.
    path.write_text(path.read_text() + "<script>document.title='taken'</script>")
    page = visit(path)
    assert "taken" not in page.title()
    assert any("Content Security Policy" in line for line in page.asked)
