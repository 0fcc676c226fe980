"""The report in a real browser: no error, no outside request, and the slider moves numbers.

All of it can be read in light and dark, wide and narrow, and reached by keyboard: axe-core says so.
"""

import json
import re

import pytest

import nextword
from nextword.explanation.attention import attend
from nextword.rendering.compare import comparison_html
from nextword.rendering.heat import DARK, HOTTEST_NATS, LIGHT, heat_colors
from nextword.rendering.report import SECTIONS

PHONE, DESK = {"width": 390, "height": 800}, {"width": 1200, "height": 900}


@pytest.fixture(scope="module")
def page_file(shared, small_run):
    file = shared.folder / "report.html"
    if not file.exists():
        done = shared.nextword("report", small_run, "-o", str(file))
        assert done.returncode == 0, done.stderr
    return file


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
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)[1]
    assert policy.startswith("default-src 'none';")
    assert "http" not in policy


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


@pytest.fixture(scope="module")
def other_pages(tmp_path_factory):
    """Reports of a run of characters and of one that names hidden tokens."""
    folder = tmp_path_factory.mktemp("pages")
    text = "the good cat sat on the warm mat. “Ça va?” asked the dog; 猫说好 🙂.\n\tif x < 1:\n"
    (folder / "t.txt").write_text(text * 60, encoding="utf-8")
    common = {"training.steps": 2, "model.context": 64}
    kinds = {
        "char": {"vocabulary.kind": "char"},
        "masked": {"objective.name": "masked", "vocabulary.kind": "byte"},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEXTWORD_CACHE", str(folder / "cache"))
        patch.setenv("NEXTWORD_RUNS", str(folder / "runs"))
        for name, options in kinds.items():
            model = nextword.train(folder / "t.txt", name=name, options=common | options)
            model.report(folder / f"{name}.html")
    return {name: folder / f"{name}.html" for name in kinds}


def complaints(page, axe, **options):
    """What axe-core finds wrong: rule and element.

    Of the judged texts, which are all made alike, it looks at the first: it takes milliseconds for
    each piece. The colors of all are looked at below.
    """
    page.evaluate(axe)
    others = ".heat[data-said]:not([data-said='said-0'])"
    options["resultTypes"] = ["violations"]
    found = page.evaluate(
        """async ([others, options]) => {
          const {passes, violations} = await axe.run({exclude: [[others]]}, options);
          return [passes.length, violations];
        }""",
        [others, options],
    )
    assert found[0] > 3
    return [
        (wrong["id"], node["target"], node["failureSummary"])
        for wrong in found[1]
        for node in wrong["nodes"]
    ]


def open_page(browser, file, size, scheme):
    """Open a page with all that can be unfolded unfolded."""
    page = browser.new_context(viewport=size, color_scheme=scheme).new_page()
    page.goto(file.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(one => (one.open = true))")
    return page


@pytest.mark.parametrize(
    ("kind", "size", "scheme"),
    [
        ("stories", PHONE, "light"),
        ("stories", PHONE, "dark"),
        ("stories", DESK, "light"),
        ("stories", DESK, "dark"),
        ("char", PHONE, "dark"),
        ("char", DESK, "light"),
        ("masked", PHONE, "light"),
        ("masked", DESK, "dark"),
    ],
    ids=lambda value: "phone" if value == PHONE else "desk" if value == DESK else value,
)
def test_axe_finds_nothing_wrong(browser, axe, page_file, other_pages, kind, size, scheme):
    file = {"stories": page_file, **other_pages}[kind]
    page = open_page(browser, file, size, scheme)
    # At step 0 nothing is expected yet, and every piece has its strongest color.
    page.locator("#replay input[type=range]").press("Home")
    assert complaints(page, axe) == []
    page.context.close()


def test_axe_would_find_what_it_found(browser, axe, page_file):
    page = open_page(browser, page_file, PHONE, "dark")
    closed = page.evaluate(
        """async () => {
          // How wide a figure is depends on the run's numbers: the ruler is made too wide to fit.
          document.querySelector("#ruler table").style.width = "2000px";
          document.querySelector("#ruler th").textContent = "";
          const piece = [...document.querySelectorAll(".piece")].find(
            (one) => one.textContent.trim().length > 2);
          piece.style.background = "rgb(184,88,22)";
          // The page's own script looks again at what has changed its size, and must have done so.
          await new Promise((done) => setTimeout(done, 300));
          const wide = [...document.querySelectorAll(".scroll")].filter(
            (one) => one.scrollWidth > one.clientWidth + 20);
          for (const one of wide) one.removeAttribute("tabindex");
          return wide.length;
        }"""
    )
    assert closed
    wrong = {rule for rule, *_ in complaints(page, axe)}
    assert wrong == {"scrollable-region-focusable", "empty-table-header", "color-contrast"}
    page.context.close()


def test_axe_finds_nothing_wrong_with_what_a_notebook_shows(
    browser, axe, shared_environment, small_run, tmp_path
):
    model, text = nextword.load(small_run), "We are all humans born to make mistakes"
    parts = {
        "explain": model.explain(text)._repr_html_(),
        "audit": model.audit(text)._repr_html_(),
        "replay": model.replay()._repr_html_(),
        "ruler": model.ruler(primed=False)._repr_html_(),
        "compare": comparison_html(model.compare(model, text=text)),
    }
    page = open_page(browser, write_page(tmp_path / "n.html", parts.values()), PHONE, "dark")
    # Headings and landmarks are the notebook's.
    rules = {name: {"enabled": False} for name in ("region", "heading-order")}
    assert complaints(page, axe, rules=rules) == []
    page.context.close()


def write_page(file, parts):
    """Write a page with no style of its own but a dark ground, as a notebook's theme may have."""
    body = "".join(f"<main>{part}</main>" if not n else part for n, part in enumerate(parts))
    file.write_text(
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>n</title>'
        "<style>body{background:#111;color:#eee} pre,div,figure{overflow-x:auto}"
        f"svg text{{fill:#eee}}</style><h1>n</h1><h2>n</h2>{body}",
        encoding="utf-8",
    )
    return file


def test_the_keyboard_stops_where_something_scrolls_and_only_there(browser, page_file):
    page = open_page(browser, page_file, PHONE, "light")
    boxes = page.locator(".scroll")
    assert boxes.count() > 9
    wide = "one => [one.scrollWidth > one.clientWidth, one.tabIndex === 0, one.ariaLabel]"
    seen = [box.evaluate(wide) for box in boxes.all()]
    assert all(scrolls == reached and label for scrolls, reached, label in seen)
    assert any(scrolls for scrolls, *_ in seen)
    ruler = boxes.first
    ruler.focus()
    page.keyboard.press("ArrowRight")
    until(page, "document.activeElement.scrollLeft > 0")
    page.set_viewport_size({"width": 2000, "height": 900})
    assert ruler.evaluate("one => one.scrollWidth === one.clientWidth")
    until(page, "document.querySelector('.scroll').tabIndex === -1")
    assert all(
        scrolls == reached for scrolls, reached, _ in (box.evaluate(wide) for box in boxes.all())
    )
    page.context.close()


def until(page, condition):
    """Wait for it; the page allows no text to be run as a script, so it is asked from outside."""
    for _ in range(200):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    pytest.fail(condition)


def test_without_its_script_all_that_may_scroll_is_reached(page_file):
    text = page_file.read_text(encoding="utf-8")
    boxes = re.findall(r'<[^>]*class="scroll"[^>]*>', text)
    assert len(boxes) > 9
    assert all('tabindex="0"' in box and "aria-label=" in box for box in boxes)
    assert text.count("<pre") == text.count('<pre class="scroll"')
    assert text.count("<figure") == text.count('<figure class="scroll"')
    assert not re.search(r"<th[^>]*></th>", text)
    ids = re.findall(r'\bid="([^"]*)"', text)
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("scheme", [LIGHT, DARK], ids=["light", "dark"])
def test_every_piece_can_be_read_on_its_color(scheme):
    for tenth in range(int(HOTTEST_NATS * 10) + 20):
        behind, ink = heat_colors(tenth / 10, scheme)
        assert contrast(behind, ink) >= 4.5, (tenth, behind, ink)
    assert heat_colors(0.0, scheme)[0] == "#" + "".join(f"{part:02x}" for part in scheme.cold)
    assert heat_colors(99.0, scheme)[0] == "#" + "".join(f"{part:02x}" for part in scheme.hot)


@pytest.mark.parametrize(("name", "scheme"), [("light", LIGHT), ("dark", DARK)])
def test_script_and_page_color_alike_and_even_a_single_letter_can_be_read(
    browser, page_file, shared_environment, small_run, name, scheme
):
    # Of single letters axe-core says nothing.
    page = open_page(browser, page_file, DESK, name)
    told = """all => all.map(getComputedStyle).map(({backgroundColor, color}) =>
        [backgroundColor, color])"""
    shown = page.locator("#surprise .piece").evaluate_all(told)
    replayed = page.locator("#replay-text .piece").evaluate_all(told)
    assert all(contrast(behind, ink) >= 4.5 for behind, ink in [*shown, *replayed])
    last = nextword.load(small_run).replay().judged[-1][0].nats
    expected = [heat_colors(nats, scheme)[0] for nats in last]
    assert [_hex(behind) for behind, _ in replayed] == expected
    page.context.close()


def _hex(color):
    return "#" + "".join(f"{int(part):02x}" for part in re.findall(r"\d+", color)[:3])


def contrast(one, other):
    """The ratio of WCAG 2.2, section 1.4.3."""

    def light(color):
        if color.startswith("#"):
            color = " ".join(str(int(color[place : place + 2], 16)) for place in (1, 3, 5))
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


def test_its_heads_are_those_of_the_model(opened, small_run, shared_environment):
    maps = attend(nextword.load(small_run).opened, "We are all humans born to make mistakes")
    layers, heads, pieces, _ = maps.weights.shape
    assert opened.locator("#attention .heads button").count() == layers * heads
    opened.click(f'#attention [data-head="{layers - 1}.{heads - 1}"]')
    opened.focus(f'#attention .lines g[data-from="{pieces - 1}"]')
    said = opened.text_content("#attention .said")
    at = int(maps.weights[-1, -1, -1].argmax())
    share = 100 * float(maps.weights[-1, -1, -1, at])
    assert said.startswith(f"Layer {layers}, head {heads}: at ")
    assert f'looks at "{maps.pieces[at]}" {share:.{1 if share < 10 else 0}f} %' in said
