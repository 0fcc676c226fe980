"""The live page in a real browser: typed into, scrubbed, taught, and left without its server."""

import contextlib
import json
import re
import shutil
import subprocess
import sys
import time

import httpx
import pytest

from tests.watch.conftest import faults, watching

COLORS = "() => [...document.querySelectorAll('#heat .piece')].map(one => one.style.background)"
TITLE = "document.querySelector('h1').textContent"
STATE = "document.getElementById('state').textContent"
PHONE, DESK = {"width": 390, "height": 800}, {"width": 1200, "height": 900}


@pytest.fixture
def opened(browser, live):
    """The page, and what went wrong in it or was asked of elsewhere."""
    noted = []
    page = browser.new_page(viewport=DESK)
    page.on("console", lambda message: noted.append(message.text))
    page.on("pageerror", lambda error: noted.append(str(error)))
    page.on("request", lambda request: None if request.url.startswith((live, "data:")) else noted.append(request.url))  # fmt: skip  # noqa: E501
    page.goto(live)
    page.wait_for_selector("#bars li")
    yield page
    page.close()
    assert noted == []


def test_curves_sentences_and_samples_are_there(opened):
    opened.wait_for_selector("#heat .piece")
    assert "how it learned" in opened.text_content("h1")
    assert "step 12" in opened.text_content("#state")
    assert opened.locator("#samples .sample").count() == 3
    opened.focus("#loss")
    opened.keyboard.press("End")
    opened.wait_for_function(
        "() => document.getElementById('loss-said').textContent.includes('held out')"
    )
    drawn = opened.evaluate(
        "() => { const c = document.getElementById('loss'), d = c.getContext('2d')"
        ".getImageData(0, 0, c.width, c.height).data; return new Set(d).size; }"
    )
    assert drawn > 20  # something was drawn: many colors


def test_a_line_that_is_typed_in_is_answered_and_goes_on_by_a_click(opened):
    said = opened.text_content("#bars")
    opened.fill("#line", "We are")
    opened.wait_for_function("was => document.getElementById('bars').textContent !== was", arg=said)
    first = opened.text_content("#bars li:first-child .word")
    before = opened.input_value("#line")
    opened.click("#bars li:first-child button")
    assert opened.input_value("#line") == before + first
    opened.wait_for_function(
        "n => document.getElementById('judged').textContent.length > n", arg=len(before)
    )


def test_the_slider_goes_through_the_steps(opened):
    opened.wait_for_selector("#heat .piece")
    last = opened.text_content("#moment-said")
    colors = opened.evaluate(
        "[...document.querySelectorAll('#heat .piece')].map(s => s.style.background)"
    )
    opened.focus("#moment")
    opened.keyboard.press("Home")
    assert opened.text_content("#moment-said").startswith("Step 0:")
    assert opened.text_content("#moment-said") != last
    now = opened.evaluate(
        "[...document.querySelectorAll('#heat .piece')].map(s => s.style.background)"
    )
    assert now != colors
    opened.hover("#heat .piece:nth-child(3)")
    assert "at step 0" in opened.text_content("#heat-said")
    assert "at step 12" in opened.text_content("#heat-said")
    sides = "#then-now > div:nth-child({}) .word"
    then, now = (opened.locator(sides.format(side)).all_text_contents() for side in (1, 2))
    assert len(then) == len(now) == 5
    assert then != now
    opened.focus("#moment")
    opened.keyboard.press("End")  # the piece stays the one pointed at
    assert opened.locator(sides.format(1)).all_text_contents() == now


def test_it_is_taught_and_forgets(opened):
    bars = opened.text_content("#bars")
    opened.fill("#lesson", "We are all humans born to sing")
    for times in (1, 2):
        opened.click("#teach button[type=submit]")
        opened.wait_for_function(
            "n => document.getElementById('teach-said').textContent.startsWith(`After ${n} `)",
            arg=times,
        )
    assert opened.locator("#taught tr").count() > 5
    opened.wait_for_function("was => document.getElementById('bars').textContent !== was", arg=bars)
    opened.click("#undo")
    opened.wait_for_function("was => document.getElementById('bars').textContent === was", arg=bars)


def test_it_follows_a_journal_that_grows(opened, run):
    line = {"event": "step", "step": 13, "loss": 1.5, "seconds": 9.0, "gradient_norm": 2.0}
    with open(run / "metrics.jsonl", "a") as stream:
        stream.write(json.dumps(line) + "\n")
    opened.wait_for_function(
        "() => document.getElementById('state').textContent.includes('step 13')"
    )
    with open(run / "metrics.jsonl", "a") as stream:
        stream.write("damaged\n")
    opened.wait_for_function(
        "() => document.getElementById('damaged').textContent.includes('1 damaged')"
    )


def test_two_runs_stand_side_by_side(browser, axe, run):
    other = run.with_name("other")
    shutil.copytree(run, other)
    text = (other / "settings.toml").read_text()
    (other / "settings.toml").write_text(text + "\n[training]\nseed = 77\n")
    with watching(run) as (address, _):
        page = browser.new_page(viewport=DESK)
        page.goto(address)
        page.wait_for_selector("#bars li")
        page.select_option("#beside", "other")
        page.wait_for_selector("#two td")
        assert "77" in page.text_content("#two")
        assert faults(page, axe) == []
        page.select_option("#run", "other")
        page.wait_for_function("() => document.querySelector('h1').textContent.startsWith('other')")
        page.close()


def test_it_comes_back_with_its_server_and_in_two_tabs(browser, axe, run):
    with watching(run) as (address, _):
        pages = [browser.new_page(viewport=DESK) for _ in range(2)]
        for page in pages:
            page.goto(address)
            page.wait_for_selector("#bars li")
    port = int(address.rsplit(":", 1)[1])
    for page in pages:
        page.wait_for_function("() => document.getElementById('trouble').textContent !== ''")
        assert faults(page, axe) == []
    line = {"event": "step", "step": 14, "loss": 1.0, "seconds": 9.0}
    with open(run / "metrics.jsonl", "a") as stream:
        stream.write(json.dumps(line) + "\n")
    with watching(run, port):
        for page in pages:
            page.wait_for_function(
                "() => document.getElementById('state').textContent.includes('step 14')"
            )
            assert page.text_content("#trouble") == ""
            page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [PHONE, DESK], ids=["narrow", "wide"])
def test_axe_finds_nothing(browser, axe, live, scheme, viewport):
    page = browser.new_page(viewport=viewport, color_scheme=scheme)
    page.goto(live)
    page.wait_for_selector("#bars li")
    page.wait_for_selector("#heat .piece")
    page.click("#teach button[type=submit]")
    page.wait_for_selector("#taught td")
    assert faults(page, axe) == []
    page.close()


def test_it_is_kept_as_one_file_that_asks_nothing(browser, axe, run, place):
    done = place.nextword("watch", "small", "-o", "page.html")
    assert done.returncode == 0, done.stderr
    assert place.nextword("watch", "small", "-o", "page.html").returncode == 2  # is there already
    noted = []
    page = browser.new_page(viewport=DESK)
    page.on("console", lambda message: noted.append(message.text))
    page.on("pageerror", lambda error: noted.append(str(error)))
    page.on("request", lambda request: noted.append(request.url))
    page.goto((place.folder / "page.html").as_uri())
    page.wait_for_selector("#heat .piece")
    assert "step 12" in page.text_content("#state")
    assert page.is_hidden("#ask-section")
    assert faults(page, axe) == []
    page.close()
    assert [one for one in noted if not one.startswith(("file:", "data:"))] == []


def test_runs_that_answer_no_such_question_are_shown_without(browser, axe, place):
    few = ["--corpus.stories", "100", "--training.steps", "4", "--quiet"]
    masked = ["train", "--name", "both", "--objective", "masked", *few]
    assert place.nextword(*masked).returncode == 0
    assert place.nextword("train", "--name", "base", *few).returncode == 0
    rows = "".join(f"the {number} cat sat,{'ab'[number % 2]}\n" for number in range(40))
    (place.folder / "labels.csv").write_text("text,label\n" + rows)
    done = place.nextword("finetune", "base", "labels.csv", "--name", "named", "--quiet")
    assert done.returncode == 0, done.stderr
    for name in ("both", "named"):
        noted = []
        with watching(place.folder / "runs" / name) as (address, _):
            page = browser.new_page(viewport=DESK)
            page.on("console", lambda message, noted=noted: noted.append(message.text))
            page.on("pageerror", lambda error, noted=noted: noted.append(str(error)))
            page.goto(address)
            page.wait_for_function(f"() => {STATE}.includes('step')")
            assert page.is_hidden("#ask-section")
            assert "how it learned" in page.text_content("h1")
            assert faults(page, axe) == []
            page.close()
        assert noted == []


def test_signs_that_control_a_line_are_shown(browser, run):
    lines = (run / "metrics.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    for event in events:
        if event["event"] == "evaluation":
            event["sample"] = "a\x1b[2J<b>bold</b>\u202eb"
    (run / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in events))
    with watching(run) as (address, _):
        page = browser.new_page(viewport=DESK)
        page.goto(address)
        page.wait_for_selector("#samples .sample")
        assert "a␛[2J<b>bold</b>�b" in page.text_content("#samples")
        page.close()


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such signal")
def test_a_run_is_told_to_save_and_to_stop(place, browser):
    options = ["--corpus.stories", "400", "--training.steps", "100000", "--machine.threads", "1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "nextword", "train", "--name", "long", "--quiet", *options],
        cwd=place.folder, env=place.environment(), stderr=subprocess.PIPE,
    )  # fmt: skip
    run = place.folder / "runs" / "long"
    try:
        until = time.monotonic() + 120
        while not (run / "metrics.jsonl").is_file() or '"step"' not in _read(run):
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < until
            time.sleep(0.1)
        with watching(run) as (address, _):
            page = browser.new_page(viewport=DESK)
            page.goto(address)
            page.wait_for_selector("#orders:not([hidden])")
            assert "learning now" in page.text_content("h1")
            # No checkpoint yet: it is asked by the weights of this moment.
            page.fill("#line", "We")
            page.wait_for_function(
                "() => document.getElementById('ask-said').textContent.includes('at step')"
            )
            assert not list((run / "checkpoints").glob("step-*"))
            page.click("#pause")
            page.wait_for_function(f"() => {TITLE}.includes('paused')")
            while "pause" not in _read(run):
                assert time.monotonic() < until
                time.sleep(0.1)
            stood = len(_read(run))
            time.sleep(1)
            assert len(_read(run)) == stood
            page.click("#pause")
            while len(_read(run)) == stood:
                assert time.monotonic() < until
                time.sleep(0.1)
            page.click("[data-order='halve the rate']")
            while '"event": "rate"' not in _read(run):
                assert time.monotonic() < until
                time.sleep(0.1)
            page.click("[data-order=save]")
            while not list((run / "checkpoints").glob("step-*")):
                assert time.monotonic() < until
                time.sleep(0.1)
            page.fill("#line", "We are")
            page.wait_for_selector("#bars li")
            page.click("[data-order=stop]")
            assert process.wait(300) == 143
            page.close()
        events = [json.loads(line) for line in _read(run).splitlines()]
        told = [one["what"] for one in events if one["event"] == "order"]
        assert told == ["save", "stop"]
        (lowered,) = (one for one in events if one["event"] == "rate")
        assert lowered["scale"] == 0.5
        steps = {one["step"]: one for one in events if one["event"] == "step"}
        since = lowered["step"]
        before, after = (steps[since + n]["rate_factor"] for n in (0, 1))
        warming_up = 0.5 * before * (since + 1) / since
        assert after in (pytest.approx(warming_up), pytest.approx(0.5 * before, rel=0.01))
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stderr.close()


def _read(run):
    return (run / "metrics.jsonl").read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["nobody"], "no run 'nobody'"), (["small", "--port", "99999"], "65535")],
)
def test_what_cannot_be_watched_is_one_line(place, run, arguments, words):
    done = place.nextword("watch", *arguments)
    assert done.returncode == 2
    assert words in done.stderr


def test_what_a_step_read_is_shown(opened, axe):
    opened.fill("#step", "3")
    opened.click("#look")
    opened.wait_for_selector("#batch-texts .sample")
    assert "Step 3 read" in opened.text_content("#batch-said")
    assert opened.locator("#layers li").count() >= 3
    assert faults(opened, axe) == []
    opened.focus("#loss")
    opened.keyboard.press("Home")
    opened.wait_for_timeout(100)
    opened.hover("#loss", position={"x": 600, "y": 200})
    opened.click("#loss", position={"x": 600, "y": 200})
    opened.wait_for_function(
        "() => !document.getElementById('batch-said').textContent.startsWith('Step 3 read')"
    )


def test_each_layer_says_what_it_would(opened):
    opened.click("summary")
    assert opened.locator("#lens tr").count() == 4  # a head, the embedding and two layers
    first = opened.text_content("#bars li:first-child .word")
    assert first in opened.text_content("#lens tr:last-child")


def test_each_layer_says_it_at_each_checkpoint_and_at_each_moment(opened, axe, run):
    opened.click("summary")
    opened.click("#by-step")
    opened.wait_for_selector("#map td.piece-cell")
    assert opened.locator("#map th").all_text_contents()[:2] == ["step 6", "step 12"]
    assert opened.locator("#map tr").count() == 4
    first = opened.text_content("#bars li:first-child .word")
    assert first in opened.text_content("#map tr:nth-child(2) td:last-child")
    assert faults(opened, axe) == []
    opened.fill("#line", "We are")  # another sentence has none yet
    opened.wait_for_function("() => document.getElementById('map-box').hidden")


def test_a_training_is_watched_while_it_lasts(place, browser, axe):
    options = ["--corpus.stories", "400", "--training.steps", "100000", "--machine.threads", "1"]
    options += ["--quiet", "--watch"]
    process = subprocess.Popen(
        [sys.executable, "-m", "nextword", "train", "--name", "seen", *options],
        cwd=place.folder, env=place.environment(), stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        said = process.stderr.readline()
        address = re.search(r"seen: (http://127\.0\.0\.1:\d+)", said)
        assert address, said
        page = browser.new_page(viewport=DESK)
        page.goto(address[1])
        page.wait_for_function(
            "() => /step \\d+/.test(document.getElementById('state').textContent)"
        )
        page.click("[data-order=pause]")
        page.wait_for_function(f"() => {TITLE}.includes('paused')")
        assert faults(page, axe) == []
        page.click("[data-order=stop]")
        assert process.wait(300) == 143
        page.wait_for_function("() => document.getElementById('trouble').textContent !== ''")
        page.close()
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()
    until = time.monotonic() + 20
    with contextlib.suppress(httpx.ConnectError):
        while httpx.get(address[1]) and time.monotonic() < until:
            time.sleep(0.2)
    with pytest.raises(httpx.ConnectError):
        httpx.get(address[1])
