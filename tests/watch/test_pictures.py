"""The README's pictures of the live page are made here: `pytest tests/watch -k picture --pictures`.

Without the option they are made all the same, and those that are kept must be of the same page.
"""

import base64
import re
from pathlib import Path

import pytest

from tests.watch.conftest import watching

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "docs" / "pictures"
WIDE, AROUND = 1000, 20
SIZE = (
    "source => new Promise(done => { const one = new Image(); one.onload = () => done("
    "[one.naturalWidth, one.naturalHeight]); one.src = source; })"
)


def _prepare_curve(page):
    page.focus("#loss")
    page.keyboard.press("PageUp")
    page.wait_for_function("() => document.getElementById('loss-said').textContent")
    page.evaluate("document.activeElement.blur()")


def _prepare_sentence(page):
    page.focus("#moment")
    for _ in range(3):
        page.keyboard.press("Home")
        page.keyboard.press("PageUp")
    page.hover("#heat .piece:nth-child(7)")
    page.evaluate("document.activeElement.blur()")


PICTURES = {
    "watch-curve": ("#h-loss", "#loss-said", _prepare_curve),
    "watch-sentence": ("#h-pins", "#odds", _prepare_sentence),
}


@pytest.fixture
def page(browser, shared_environment, default_run):
    with watching(shared_environment.folder / "runs" / "stories-1") as (address, _):
        page = browser.new_page(viewport={"width": WIDE, "height": 900}, color_scheme="light")
        page.goto(address)
        page.wait_for_selector("#bars li")
        page.wait_for_selector("#heat .piece")
        yield page
        page.close()


@pytest.mark.parametrize("name", PICTURES)
def test_the_picture_is_of_the_page_as_it_is(page, pytestconfig, name):
    first, last, prepare = PICTURES[name]
    prepare(page)
    page.wait_for_timeout(100)  # a chart is drawn in the next frame
    top, end = (page.locator(one).bounding_box() for one in (first, last))
    scrolled = page.evaluate("scrollY")
    clip = {
        "x": top["x"] - AROUND,
        "y": top["y"] + scrolled - AROUND,
        "width": top["width"] + 2 * AROUND,
        "height": end["y"] + end["height"] - top["y"] + 2 * AROUND,
    }
    made = page.screenshot(full_page=True, clip=clip)
    kept = KEPT / f"{name}.png"
    if pytestconfig.getoption("--pictures"):
        kept.parent.mkdir(exist_ok=True)
        kept.write_bytes(made)
    (wide, tall), (kept_wide, kept_tall) = (size_of(page, one) for one in (made, kept.read_bytes()))
    assert wide == kept_wide
    assert tall == pytest.approx(kept_tall, rel=0.1)  # other numbers, other breaks of lines
    assert len(made) > 10_000  # something is drawn
    told = [(ROOT / file).read_text(encoding="utf-8") for file in ("README.md", "docs/watch.md")]
    assert any(re.search(rf"!\[[^]]+\]\((docs/)?pictures/{name}\.png\)", text) for text in told)


def size_of(page, png):
    """Ask the browser how wide and tall a picture is, in pixels."""
    return page.evaluate(SIZE, f"data:image/png;base64,{base64.b64encode(png).decode()}")
