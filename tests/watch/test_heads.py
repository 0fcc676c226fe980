"""Where the heads of a run's newest weights look, on its live page."""

import numpy as np
import pytest

import nextword
from nextword.explanation.attention import attend
from nextword.watch.asking import Weights
from tests.watch.conftest import watching

SENTENCE = "We are all humans born to sing"


def test_they_are_those_of_the_newest_weights_or_of_a_copy_that_was_taught(run):
    weights = Weights(run)
    told = weights.attention("We are all")
    maps = attend(nextword.load("small").opened, "We are all")
    assert told["step"] == 12
    assert told["pieces"] == list(maps.pieces)
    np.testing.assert_allclose(told["weights"], maps.weights, atol=1e-4)
    taught = weights.attention("We are all", SENTENCE, 3)
    assert np.abs(np.array(taught["weights"]) - maps.weights).max() > 0.01
    assert weights.attention("We are all") == told


def test_a_head_is_chosen_and_follows_what_is_typed(browser, axe, run):
    with watching(run) as (address, _):
        page = browser.new_page(viewport={"width": 700, "height": 900})
        wrong = []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(address)
        page.wait_for_selector("#bars li")
        asked = []
        page.on("request", lambda request: asked.append(request.url))
        page.fill("#line", "We are all")
        page.wait_for_function("() => document.querySelectorAll('#judged .piece').length > 0")
        assert not [one for one in asked if "attention" in one]  # nobody looks at it yet
        page.click("text=Where its heads look")
        shape = np.array(Weights(run).attention("We are all")["weights"]).shape
        page.wait_for_selector(".attention .heads button")
        assert page.locator(".attention .heads button").count() == shape[0] * shape[1]
        page.click('.attention [data-head="1.1"]')
        rows = page.locator(".attention .map tbody tr")
        assert rows.count() == shape[2]
        page.fill("#line", "We are all humans born")
        page.wait_for_function(
            "n => document.querySelectorAll('.attention .map tbody tr').length > n", arg=shape[2]
        )
        assert page.text_content(".attention .chosen") == "Layer 2, head 2"
        assert "step 12" in page.text_content("#heads-said")
        page.fill("#line", "")
        page.wait_for_function(
            "() => document.getElementById('heads-said').textContent.includes('is empty')"
        )
        assert page.is_hidden(".attention .heads")
        page.fill("#line", "We are")
        page.wait_for_selector(".attention .heads button")
        page.evaluate(axe)
        found = page.evaluate("axe.run().then(done => done.violations.map(one => one.id))")
        assert found == []
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
        page.close()
        assert wrong == []


@pytest.mark.parametrize("text", ["", "We are all humans. " * 200])
def test_what_cannot_be_shown_is_said(run, text):
    with pytest.raises(nextword.base.errors.EvaluationError, match=r"is empty|can be shown"):
        Weights(run).attention(text)
