"""What the live page's charts draw: the words they write, as the browser is told to write them."""

import json
import re
import shutil

import pytest

from nextword.corpus.builtin import worked_odds
from tests.watch.conftest import faults, watching

DESK = {"width": 1200, "height": 900}
PHONE = {"width": 390, "height": 800}
NOTE_WORDS = """
window.written = {};
const write = CanvasRenderingContext2D.prototype.fillText;
CanvasRenderingContext2D.prototype.fillText = function (words, x, y) {
  (window.written[this.canvas.id] ||= []).push(words);
  write.call(this, words, x, y);
};
const clear = CanvasRenderingContext2D.prototype.clearRect;
CanvasRenderingContext2D.prototype.clearRect = function (...where) {
  window.written[this.canvas.id] = [];
  clear.apply(this, where);
};
"""
"""Notes for each chart what is written in it since it was wiped last."""
MARKS = [
    {"name": "any of the pieces", "kind": "guess", "bits": 9400.0},
    {"name": "the last two", "kind": "count", "bits": 5000.0},
    {"name": "xz", "kind": "pack", "bits": 7000.0},
    {"name": "this model", "kind": "model", "bits": 6000.0},
]


@pytest.fixture
def judged(run):
    """The run with a ruler and a floor in its journal, in nats a piece of 1,000 tokens."""
    events = [
        {"event": "ruler", "step": 12, "tokens": 1000, "marks": MARKS},
        {"event": "floor", "step": 12, "nats_per_token": 1.25},
    ]
    with open(run / "metrics.jsonl", "a") as stream:
        stream.writelines(json.dumps(event) + "\n" for event in events)
    return run


@pytest.fixture
def page(browser, judged):
    with watching(judged) as (address, _):
        page = browser.new_page(viewport=DESK)
        page.add_init_script(NOTE_WORDS)
        page.goto(address)
        page.wait_for_selector("#heat .piece")
        yield page
        page.close()


def written(page, chart):
    """Return what stands in a chart, when it has been drawn."""
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => setTimeout(done, 50)))")
    return page.evaluate("name => window.written[name] || []", chart)


def test_the_rulers_lines_and_the_least_possible_are_drawn(page):
    words = written(page, "loss")
    assert "the last two 3.47" in words  # 5,000 bits ln 2 over 1,000 tokens
    assert "xz 4.85" in words
    assert "any of the pieces 6.52" in words
    assert "least possible 1.25" in words
    assert not [one for one in words if one.startswith("this model")]  # the curve itself is that


@pytest.mark.parametrize(
    ("over", "last", "word"),
    [("tokens", "12.3K", "tokens read"), ("step", "12", "steps"), ("flops", None, "FLOPs")],
)
def test_the_curve_stands_over_what_is_chosen(page, judged, over, last, word):
    if last is None:  # of so many operations a token, 1,024 tokens a step, 12 steps
        facts = json.loads((judged / "run.json").read_text())
        last = f"{facts['flops_per_token'] * 12 * 1024 / 1e9:.1f}B"
    page.select_option("#across", over)
    assert last in written(page, "loss")
    page.focus("#loss")
    page.keyboard.press("End")
    page.wait_for_function(
        "word => document.getElementById('loss-said').textContent.includes(word)", arg=word
    )
    for small in ("rate", "norm", "speed"):
        assert written(page, small)


def test_each_doubling_has_the_same_room_or_each_step(page):
    page.select_option("#across", "step")
    doubling = written(page, "loss")
    assert "3.46" in doubling  # the middle of 1 and 12 by doublings
    page.uncheck("#log")
    even = written(page, "loss")
    assert "6.5" in even
    assert "6.5" not in doubling
    assert "3.46" not in even


def test_time_is_counted_in_seconds(page, judged):
    page.select_option("#across", "seconds")
    page.focus("#loss")
    page.keyboard.press("End")
    steps = [json.loads(line) for line in (judged / "metrics.jsonl").read_text().splitlines()]
    last = [one["seconds"] for one in steps if one["event"] == "step"][-1]
    page.wait_for_function(
        "told => document.getElementById('loss-said').textContent.startsWith(`at ${told}`)",
        arg=f"{last:.4g}",
    )


def test_the_worked_examples_odds_stand_beside_the_true_ones(page):
    assert worked_odds("stories") == pytest.approx(0.6)
    assert worked_odds("python") is None
    first = page.evaluate(
        "() => [...document.querySelectorAll('#heat .piece')].findIndex(p => p.textContent === ' make')"  # noqa: E501
    )
    at = "#heat .piece:nth-child({})"
    assert first >= 0
    assert "true odds 0.6" in written(page, "odds")
    page.click(at.format(first + 1))
    assert "true odds 0.6" in written(page, "odds")
    page.click(at.format(1))
    assert not [one for one in written(page, "odds") if one.startswith("true odds")]


def test_play_goes_through_the_steps_and_stops(page):
    last = page.get_attribute("#moment", "max")
    assert int(last) >= 2
    assert page.input_value("#moment") == last
    page.click("#play")
    assert page.text_content("#play") == "Pause"
    page.wait_for_function("last => Number(document.getElementById('moment').value) < last", arg=int(last))  # fmt: skip  # noqa: E501
    page.wait_for_function("() => document.getElementById('play').textContent === 'Play'")
    assert page.input_value("#moment") == last
    page.click("#play")
    page.wait_for_function("() => Number(document.getElementById('moment').value) > 0")
    page.click("#play")
    stood = page.input_value("#moment")
    page.wait_for_timeout(600)
    assert page.input_value("#moment") == stood
    assert page.text_content("#play") == "Play"


def test_a_second_run_is_a_second_curve(page, judged):
    other = judged.with_name("other")
    shutil.copytree(judged, other)
    events = [json.loads(line) for line in (other / "metrics.jsonl").read_text().splitlines()]
    for event in events:
        if event["event"] == "step":
            event["loss"] += 2.0
    (other / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in events))
    page.reload()
    page.wait_for_selector("#heat .piece")
    page.wait_for_function("() => document.querySelectorAll('#beside option').length === 3")
    alone = written(page, "loss")
    page.select_option("#beside", "other")
    page.wait_for_selector("#two td")
    assert written(page, "loss") != alone  # the frame holds both
    page.focus("#loss")
    page.keyboard.press("End")
    page.wait_for_function(
        "() => document.getElementById('loss-said').textContent.includes('other: training')"
    )
    said = page.text_content("#loss-said")
    ours, theirs = map(float, re.findall(r"training ([\d.]+)", said))
    assert theirs == pytest.approx(ours + 2.0, abs=0.01)


def test_on_a_phone_it_is_tapped(browser, judged):
    with watching(judged) as (address, _):
        context = browser.new_context(viewport=PHONE, has_touch=True, is_mobile=True)
        page = context.new_page()
        page.add_init_script(NOTE_WORDS)
        page.goto(address)
        page.wait_for_selector("#bars li")
        before = page.input_value("#line")
        page.tap("#bars li:first-child button")
        assert page.input_value("#line") != before
        page.tap("#heat .piece:nth-child(3)")
        assert "at step 12" in page.text_content("#heat-said")
        page.tap("#teach button[type=submit]")
        page.wait_for_selector("#taught td")
        page.tap("#undo")
        assert page.locator("#taught td").count() == 0
        page.tap("#loss")
        page.wait_for_selector("#batch-texts .sample")
        assert "held out" in page.text_content("#loss-said")
        assert len([one for one in written(page, "loss") if one.endswith(("K", "M"))]) == 3
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
        context.close()


def test_a_spike_is_marked_and_a_click_shows_its_batch(run, browser, axe):
    parts = {"embedding": 3.0, "layer 1": 4.0, "layer 2": 0.5}
    spike = {"event": "spike", "step": 7, "gradient_norm": 5.1, "usual": 0.2, "parts": parts}
    with open(run / "metrics.jsonl", "a") as stream:
        stream.write(json.dumps(spike) + "\n")
    with watching(run) as (address, _):
        page = browser.new_page(viewport=DESK)
        page.goto(address)
        page.click("text=spike at 7")
        page.wait_for_function(
            "() => document.getElementById('batch-said').textContent.includes('of the whole batch')"
        )
        assert "Step 7 read" in page.text_content("#batch-said")
        shown = page.text_content("#layers")
        for name in parts:
            assert name in shown
        assert faults(page, axe) == []
        page.close()
