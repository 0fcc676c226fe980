"""Attention maps: transformers' own, what is said of them, and the page."""

import json

import numpy as np
import pytest
import torch
from transformers import AutoModel

import nextword
from nextword.base.errors import EvaluationError
from nextword.explanation.attention import BEGINNING, END, AttentionMaps, attend
from nextword.rendering.attention import attention_page, describe_heads, describe_map
from tests.compared import near

TEXT = "the good cat sat on the warm mat. the bad dog ran to the cold sea.\n"
SAID = "the good cat ran"

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(params=["causal", "masked"])
def opened(request, place):
    (place.folder / "t.txt").write_text(TEXT * 60)
    options = {
        "training.steps": 3,
        "model.context": 64,
        "vocabulary.size": 300,
        "model.num_attention_heads": 4,
        "model.num_key_value_heads": 2,
        "objective.name": request.param,
    }
    nextword.train(place.folder / "t.txt", name="it", options=options)
    return nextword.load("it").opened


@pytest.mark.filterwarnings("ignore")
def test_the_maps_are_transformers_own(opened):
    maps = attend(opened, SAID)
    words = opened.vocabulary
    ids = [words.begin_id, *words.encode(SAID), *[words.end_id] * (not opened.model.shape.causal)]
    theirs = AutoModel.from_pretrained(opened.folder, attn_implementation="eager").eval()
    with torch.no_grad():
        expected = theirs(input_ids=torch.tensor([ids]), output_attentions=True).attentions
    assert maps.weights.shape == (len(expected), *expected[0].shape[1:])
    near("transformers, attention maps", maps.weights, torch.cat(expected), most=1e-5)
    assert maps.causal == opened.model.shape.causal
    assert maps.pieces[0] == BEGINNING
    assert "".join(maps.pieces[1 : len(ids) - (not maps.causal)]) == SAID
    assert (maps.pieces[-1] == END) == (not maps.causal)


def test_the_default_path_is_left_as_it_was(opened):
    ids = torch.tensor([[5, 9, 11]])
    before = opened.model(ids)
    attend(opened, SAID)
    assert torch.equal(opened.model(ids), before)
    assert not any(part._forward_pre_hooks for part in opened.model.modules())


def by_hand(rows, pieces=None):
    weights = np.array(rows, dtype=np.float32)[None, None]
    names = tuple(pieces or [BEGINNING, *"abcdefgh"[: weights.shape[-1] - 1]])
    return AttentionMaps("it@3", names, weights, True)


def test_a_head_is_summed_up():
    maps = by_hand([[1, 0, 0, 0], [1, 0, 0, 0], [0.5, 0.5, 0, 0], [0, 0.25, 0.5, 0.25]])
    (head,) = maps.heads()
    assert head[:2] == (1, 1)
    assert head.before == pytest.approx((1 + 0.5 + 0.5) / 3)
    assert head.itself == pytest.approx((1 + 0.25) / 4)
    assert head.first == pytest.approx(0.25)
    assert head.bits == pytest.approx((0 + 0 + 1 + 1.5) / 4)
    assert head.strongest == (2, 1, 0.5)
    said = describe_heads(maps)
    assert '"b" → "a" 50%' in said
    lines = describe_map(maps, 1, 1).splitlines()
    assert [line.split('"')[-1].strip() for line in lines if '"' in line] == [
        "██", "██", "▓▓▓▓", "▒▒▓▓▒▒",
    ]  # fmt: skip
    alone = by_hand([[1, 0], [1, 0]])
    assert "none beside these" in describe_heads(alone)


def test_what_cannot_be_shown_is_one_line(place, run):
    opened = nextword.load("small").opened
    with pytest.raises(EvaluationError, match="is empty"):
        attend(opened, "")
    with pytest.raises(EvaluationError, match=r"pieces, and .* can be shown"):
        attend(opened, "We are all humans. " * 400)
    for head in ("3.1", "1.9", "0.1", "1", "a.b"):
        done = place.nextword("attention", "small", "We are", "--head", head)
        assert done.returncode == 2
        assert f"--head {head}: expected 1.1 to " in done.stderr


def test_the_command_writes_all_of_it(place, run):
    done = place.nextword("attention", "small", "We are all humans", "--json", "-o", "heads.html")
    assert done.returncode == 0, done.stderr
    values = json.loads(done.stdout)
    assert np.allclose(np.array(values["weights"]).sum(-1), 1, atol=1e-3)
    assert len(values["heads"]) == np.prod(np.array(values["weights"]).shape[:2])
    again = place.nextword("attention", "small", "We are", "-o", "heads.html")
    assert again.returncode == 2
    assert "heads.html" in again.stderr


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_says_where_a_head_looks(browser, axe, tmp_path, scheme):
    rows = [[1, 0, 0], [0.4, 0.6, 0], [0.1, 0.7, 0.2]]
    hostile = ["⟨begin⟩", "</script><b>x", "\n\u202e"]
    (tmp_path / "a.html").write_text(attention_page(by_hand(rows, hostile)), encoding="utf-8")
    page = browser.new_page(color_scheme=scheme, viewport={"width": 500, "height": 800})
    wrong = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto((tmp_path / "a.html").as_uri())
    page.focus('.lines g[data-from="2"]')
    said = page.text_content(".said")
    assert 'looks at "</script><b>x" 70 %' in said
    assert "‹U+202E›" in page.text_content(".map")
    assert page.locator(".lines line").count() == 3
    assert page.locator(".map td").count() == 10
    assert wrong == []
    page.evaluate(axe)
    found = page.evaluate("() => axe.run().then(done => done.violations.map(one => one.id))")
    assert found == []
    page.close()
