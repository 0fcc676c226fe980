"""The report in a real browser: no error, no outside request, and the slider moves numbers."""

import json
import math
import os
import re
import shutil

import pytest

import nextword
from nextword.base.errors import RunError
from nextword.explanation.render.curve import Line, chart_svg
from nextword.explanation.render.report import SECTIONS, named_together
from nextword.explanation.report import smoothed

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PHONE, DESK = {"width": 390, "height": 800}, {"width": 1200, "height": 900}


@pytest.fixture(scope="module")
def page_file(shared, small_run):
    file = shared.folder / "report.html"
    if not file.exists():
        done = shared.nextword("report", small_run, "-o", str(file))
        assert done.returncode == 0, done.stderr
    return file


@pytest.fixture(scope="module")
def browser():
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        if os.environ.get("NEXTWORD_BROWSER") == "required":
            pytest.fail("no browser, and one is required here")
        pytest.skip("no browser")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        running = play.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture
def opened(browser, page_file):
    """The page, and all that went wrong or was asked of elsewhere."""
    noted = []
    page = browser.new_page(viewport=DESK)
    page.on("console", lambda message: noted.append(message.text))
    page.on("pageerror", lambda error: noted.append(str(error)))
    page.on("request", lambda request: noted.append(request.url))
    page.goto(page_file.as_uri())
    allowed = (page_file.as_uri(), "data:,")
    yield page
    page.wait_for_timeout(50)
    page.close()
    assert [line for line in noted if line not in allowed] == []


def numbers(page):
    return page.locator("#replay-rows td.number").all_inner_texts()


def test_it_has_all_its_parts_and_asks_nothing_of_the_network(opened, page_file):
    assert opened.locator("main > section").count() == len(SECTIONS)
    assert page_file.stat().st_size <= 5 * 2**20
    text = page_file.read_text(encoding="utf-8")
    assert not re.search(r"""(?:src|href)=["'](?!#|data:)""", text)
    assert "url(" not in text
    assert "@import" not in text


def test_the_slider_changes_the_numbers_to_those_of_the_run(opened, shared_environment, small_run):
    replay = nextword.load(small_run).replay()
    slider = opened.locator("#replay input[type=range]")
    last = numbers(opened)
    slider.focus()
    opened.keyboard.press("Home")
    assert opened.locator("#replay-step").inner_text() == "0"
    first = numbers(opened)
    assert first != last
    one = replay.judged[0][0]
    assert float(opened.locator("#replay-loss").inner_text()) == pytest.approx(one.loss, abs=1e-4)
    shown = [float(value) for value in first[1::3]]
    assert shown == pytest.approx(list(one.nats), abs=1e-4)
    opened.keyboard.press("ArrowRight")
    assert opened.locator("#replay-step").inner_text() == str(replay.steps[1])
    opened.locator("#replay select").select_option("2")
    assert opened.locator("#replay-text").inner_text().replace("\n", "") == "".join(
        replay.pins[2].pieces
    ).replace("\n", "")


def test_play_runs_to_the_end(opened, shared_environment, small_run):
    last = nextword.load(small_run).replay().steps[-1]
    from playwright.sync_api import expect

    button = opened.locator("#replay button")
    button.click()
    expect(button).to_have_text("Pause")
    expect(opened.locator("#replay-step")).to_have_text(str(last), timeout=20_000)
    expect(button).to_have_text("Play")


def test_a_judged_text_is_walked_with_the_arrow_keys(opened):
    first = opened.locator(".heat[data-said] .piece").first
    first.focus()
    said = opened.locator("#said-0")
    before = said.inner_text()
    assert "mistake" in before
    opened.keyboard.press("ArrowRight")
    assert said.inner_text() != before
    opened.keyboard.press("End")
    assert opened.evaluate(
        "document.activeElement === document.activeElement.parentElement.lastChild"
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
def test_it_fits_a_phone_and_can_be_read_in_dark_and_light(browser, page_file, scheme, size):
    page = browser.new_page(viewport=size, color_scheme=scheme)
    page.goto(page_file.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    paper, ink = page.evaluate(
        "(() => { const style = getComputedStyle(document.body);"
        "return [style.backgroundColor, style.color]; })()"
    )
    assert contrast(paper, ink) >= 7
    page.close()


def contrast(one, other):
    """The ratio of WCAG 2.2, section 1.4.3."""

    def light(color):
        values = [int(value) / 255 for value in re.findall(r"\d+", color)[:3]]
        linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((light(one), light(other)))
    return (high + 0.05) / (low + 0.05)


def test_it_prints_without_controls(browser, page_file):
    page = browser.new_page(viewport=DESK)
    page.goto(page_file.as_uri())
    page.emulate_media(media="print")
    assert not page.locator("#replay .controls").is_visible()
    assert not page.locator("nav").is_visible()
    assert page.pdf()[:5] == b"%PDF-"
    page.close()


def test_what_a_text_says_cannot_become_part_of_the_page(place, browser):
    text = "</script><script>window.broken = 1</script> <b>bold</b> & 'more'. "
    (place.folder / "evil.txt").write_text(text * 150)
    options = {"training.steps": 2, "explanation.pin": (text,)}
    model = nextword.train(place.folder / "evil.txt", options=options)
    model.report(place.folder / "evil.html")
    page = browser.new_page()
    page.goto((place.folder / "evil.html").as_uri())
    assert page.evaluate("window.broken") is None
    assert page.locator("main b", has_text="bold").count() == 0
    assert page.locator("#replay-text").inner_text().startswith("</script>")
    page.close()


def test_the_figures_are_those_of_the_run(page_file, shared_environment, small_run):
    text = page_file.read_text(encoding="utf-8")
    scores = nextword.load(small_run).evaluate()
    assert f"<b>{scores.nats_per_token:.3f}</b>" in text
    assert f"<b>{scores.as_dict()['bits_per_byte']:.3f}</b>" in text
    facts = json.loads((shared_environment.folder / "runs" / small_run / "run.json").read_text())
    assert f"{facts['parameters']:,} weights" in text


def test_neighbors_are_averaged_and_the_average_stays():
    points = [(step, math.exp(-step / 50)) for step in range(1, 2001)]
    kept = smoothed(points)
    assert len(kept) <= 300
    assert kept[0] == points[0]
    assert smoothed(points[:10]) == tuple(points[:10])
    steps = [step for step, _ in kept]
    assert steps == sorted(set(steps))


def test_lines_too_close_for_two_names_get_one():
    rules = [("a", 1.0), ("b", 1.01), ("c", 2.0)]
    assert named_together(rules, 0.1) == [("b 1.01, a 1.00", 1.01), ("c 2.00", 2.0), ("", 1.0)]


def test_a_chart_puts_values_where_they_belong():
    drawn = chart_svg(
        [Line("x", ((0.0, 0.0), (10.0, 5.0)))], title="t<", across="a", up="b", high=5.0
    )
    first, last = re.search(r'points="(\S+) (\S+)"', drawn).groups()
    assert first == "56.0,256.0"
    assert last == "704.0,14.0"
    assert "t&lt;" in drawn


def test_a_model_folder_alone_has_no_report(tmp_path, shared_environment, small_run):
    folder = nextword.load(small_run).opened.folder
    shutil.copytree(folder, tmp_path / "alone")
    with pytest.raises(RunError, match="name a run"):
        nextword.load(tmp_path / "alone").report(tmp_path / "x.html")
    assert not (tmp_path / "x.html").exists()


@pytest.mark.parametrize("output", ["no/such/folder/x.html", "."])
def test_a_place_that_cannot_be_written_is_said_in_one_line(shared, small_run, output):
    done = shared.nextword("report", small_run, "-o", output)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "cannot be written" in done.stderr
