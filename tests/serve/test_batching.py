"""Who is served together with whom changes nothing; and nobody is kept waiting or forgotten."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import httpx
import pytest
from starlette.requests import ClientDisconnect

from nextword.model.slots import BLOCK
from nextword.prediction.options import SamplingSettings
from nextword.serve.asking import Courier
from nextword.serve.engine import READ_AT_ONCE, Engine, QueueFullError
from nextword.serve.growing import FAILED, LATE, UNSOUND, Wish
from tests.serve.conftest import running


class Waiting:
    """Gathers what becomes certain of texts."""

    def __init__(self, number):
        self.left, self.pieces, self.done = number, {}, threading.Event()
        self.reasons, self.prompts = {}, {}
        if not number:
            self.done.set()

    def __call__(self, text, event):
        key = id(text.wish)
        self.pieces.setdefault(key, []).extend(event.pieces)
        self.prompts.setdefault(key, []).extend(event.prompt)
        if event.reason:
            self.reasons[key] = event.reason
            self.left -= 1
            if not self.left:
                self.done.set()


def write(engine, wishes):
    """Let wishes come true; return the pieces of each, and what was thought of its prompt."""
    waiting = Waiting(len(wishes))
    engine.submit(*wishes, deliver=waiting)
    assert waiting.done.wait(300)
    return [
        (waiting.prompts.get(id(wish), []), waiting.pieces.get(id(wish), [])) for wish in wishes
    ]


@pytest.fixture(scope="module")
def engine(small):
    made = Engine(small.opened, slots=12)
    yield made
    made.close()


def wishes_of(small, number, length=40, **more):
    import random

    dice = random.Random(number)
    entries = len(small.vocabulary)
    settings = SamplingSettings(temperature=1.0, min_p=0.0)
    return [
        Wish(
            ids=tuple(dice.randrange(3, entries) for _ in range(dice.randrange(1, length))),
            most=dice.randrange(1, 30), settings=settings, seed=number, number=place, top=2, **more,
        )
        for place in range(number)
    ]  # fmt: skip


@pytest.mark.parametrize("is_joint", [True, False])
def test_a_text_is_the_same_bit_for_bit_whoever_else_is_served(
    engine, small, monkeypatch, is_joint
):
    """Where prompts are read in the same pass, and where products do not allow that."""
    if engine.slots.output.packed is not None:
        assert engine.slots.is_joint
    monkeypatch.setattr(engine.slots, "is_joint", is_joint and engine.slots.is_joint)
    wishes = wishes_of(small, 40, length=200, judges_prompt=True)
    together = write(engine, wishes)
    alone = [write(engine, [wish])[0] for wish in wishes[:15]]
    assert together[:15] == alone  # texts and every float of every log-probability
    backwards = write(engine, wishes[::-1])[::-1]
    assert backwards == together
    assert all(len(prompt) == len(w.ids) for (prompt, _), w in zip(together, wishes, strict=True))


def test_were_rows_not_filled_up_a_text_would_depend_on_others(engine, small, monkeypatch):
    """With the BLAS' products; oneDNN's do not depend on the rows beside them."""
    wishes = wishes_of(small, 12, length=20)
    for layer in engine.slots.layers:
        for matrix in (layer.projections, layer.gather, layer.gate_and_up, layer.down):
            monkeypatch.setattr(matrix, "packed", None)
    monkeypatch.setattr(engine.slots.output, "packed", None)
    monkeypatch.setattr(engine.slots, "multiple", engine.slots._find_multiple())
    assert engine.slots.multiple > 1, "products do not depend on their rows: this shows nothing"
    whole = write(engine, wishes)
    assert [write(engine, [wish])[0] for wish in wishes] == whole
    monkeypatch.setattr(engine.slots, "multiple", 1)
    assert [write(engine, [wish])[0] for wish in wishes] != write(engine, wishes)


def test_a_prompt_that_begins_alike_takes_over_what_was_read(engine, small):
    (first,) = wishes_of(small, 1)
    entries = len(small.vocabulary)
    begin = tuple(3 + (7 * place) % (entries - 3) for place in range(2 * BLOCK + 5))
    first = replace(first, ids=begin, most=8)
    before = engine.metrics._counts["prompt_tokens_reused"]
    whole = write(engine, [first])
    assert engine.metrics._counts["prompt_tokens_reused"] == before
    assert write(engine, [first]) == whole
    assert engine.metrics._counts["prompt_tokens_reused"] == before + 2 * BLOCK
    other = replace(first, ids=(*begin[: BLOCK + 3], 9, 8, 7))
    changed = write(engine, [other])
    assert engine.metrics._counts["prompt_tokens_reused"] == before + 3 * BLOCK
    # And the same without anything to take over: in an engine that has read nothing.
    fresh = Engine(small.opened, slots=3)
    assert write(fresh, [other]) == changed
    fresh.close()
    # Several at once, one of which holds the slot: its neighbors copy.
    assert write(engine, [replace(first) for _ in range(5)]) == whole * 5


def test_a_text_without_scores_spoils_nobody_elses(engine, small, monkeypatch):
    """One entry's embedding is no number: its texts are given up, those beside them go on."""
    wishes = [replace(wish, most=20) for wish in wishes_of(small, 9, length=100)]
    sound = [i for i, wish in enumerate(wishes) if i not in (2, 5)]
    expected = write(engine, wishes)
    spoiled = len(small.vocabulary) - 1
    weight = small.model.model.embed_tokens.weight.data
    monkeypatch.setattr(engine.slots.output, "weight", engine.slots.output.weight.clone())
    before = weight[spoiled].clone()
    weight[spoiled] = float("nan")
    try:
        for number, judges in ((2, False), (5, True)):
            ids = (*wishes[number].ids, spoiled, *range(3, 3 + BLOCK))
            wishes[number] = replace(wishes[number], ids=ids, judges_prompt=judges)
        waiting = Waiting(len(wishes))
        engine.submit(*wishes, deliver=waiting)
        assert waiting.done.wait(300)
    finally:
        weight[spoiled] = before
    assert {waiting.reasons[id(wishes[number])] for number in (2, 5)} == {UNSOUND}
    found = [waiting.pieces[id(wish)] for wish in wishes]
    assert [found[i] for i in sound] == [expected[i][1] for i in sound]
    # Nothing of it is left where others are kept next.
    again = wishes_of(small, 12, length=100)
    alone = Engine(small.opened, slots=12)
    assert write(engine, again) == write(alone, again)
    assert all(layer.both.isfinite().all() for layer in engine.slots.pages.layers)
    alone.close()


def test_a_prompt_of_whole_blocks_is_read_again_at_its_end(engine, small):
    (wish,) = wishes_of(small, 1)
    wish = replace(wish, ids=tuple(range(3, 3 + BLOCK)), most=5)
    assert write(engine, [wish]) == write(engine, [wish])


def test_a_long_prompt_holds_nobody_up(engine, small):
    """Between its blocks others get their tokens: no more than one turn passes without a step."""
    context = small.model.shape.context
    (short,) = wishes_of(small, 1)
    short = replace(short, ids=(5,), most=100)
    long = [replace(short, ids=(7,) * (context - 1), most=1, number=n) for n in range(11)]
    steps, real = [], engine.slots.advance
    try:
        engine.slots.advance = lambda *a: (steps.append((len(a[0]), a[3])), real(*a))[1]
        write(engine, [short, *long])
    finally:
        engine.slots.advance = real
    read = [sum(len(part.ids) for part in parts) for _, parts in steps]
    assert BLOCK < max(read) <= READ_AT_ONCE
    # Of 11 long ones, read in many steps, none was without a token for who writes.
    begun = next(number for number, (texts, _) in enumerate(steps) if texts)
    assert all(texts for texts, parts in steps[begun:] if parts)
    assert sum(map(bool, read[begun:])) > 2


@pytest.mark.parametrize("stream", [True, False])
def test_who_goes_away_frees_the_slot(server, stream):
    engine, body = server.engine, {"prompt": "We are", "max_tokens": 200, "n": 60}
    cancelled = engine.metrics._counts["texts_cancelled"]
    if stream:
        with (
            httpx.Client() as client,
            client.stream(
                "POST", server.address + "/v1/completions", json={**body, "stream": True}
            ) as answered,
        ):
            next(answered.iter_lines())
            # Texts of one length end together, and for a moment none is written then.
            assert engine.load["writing"] + engine.load["reading"] + engine.load["waiting"] > 0
    else:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(server.address + "/v1/completions", json=body, timeout=0.1)
    until = time.monotonic() + 60
    while engine.load["writing"] + engine.load["waiting"]:
        assert time.monotonic() < until
        time.sleep(0.02)
    # Eight slots: had they been written to their end, none would have been given up.
    assert engine.metrics._counts["texts_cancelled"] >= cancelled + 20
    metrics = server.get("/metrics").text
    assert 'nextword_writing{model="small"} 0' in metrics.splitlines()


def test_more_than_may_wait_are_told_to_come_again(small_place):
    with running(small_place, slots=1, queue=2) as server:
        refused = server.post("/v1/completions", prompt="We", n=4)
        assert refused.status_code == 429
        assert refused.headers["Retry-After"] == "1"
        assert refused.json()["error"]["code"] == "queue_full"
        assert server.post("/v1/completions", prompt="We", n=3).status_code == 200


def test_a_request_may_take_only_so_long(small_place):
    with running(small_place, timeout_seconds=1e-6) as server:
        late = server.post("/v1/completions", prompt="We", max_tokens=200)
        assert late.status_code == 408
        streamed = server.post("/v1/completions", prompt="We", max_tokens=200, stream=True)
        assert "took longer" in streamed.text
        assert streamed.text.endswith("data: [DONE]\n\n")


def test_a_mistake_of_the_program_is_500_and_the_next_is_served(server, monkeypatch):
    def broken(*_):
        raise RuntimeError("planted")

    with monkeypatch.context() as patch:
        patch.setattr(server.engine.slots, "advance", broken)
        answered = server.post("/v1/completions", prompt="We")
        assert answered.status_code == 500
        assert "planted" not in answered.text
    assert server.post("/v1/completions", prompt="We").status_code == 200


def test_a_mistake_after_a_step_leaves_nothing_behind(engine, small, monkeypatch):
    """Pages that were written and never looked at are wiped, and all of them come back."""
    pages = engine.slots.pages
    free, held = sorted(engine._free), sum(map(len, pages._of))
    weight = small.model.model.embed_tokens.weight.data
    monkeypatch.setattr(engine.slots.output, "weight", engine.slots.output.weight.clone())
    spoiled, before = len(small.vocabulary) - 1, weight[-1].clone()
    wishes = wishes_of(small, 3, length=100)
    wishes[1] = replace(wishes[1], ids=(*wishes[1].ids, spoiled, 3, 4))

    def broken(*_):
        raise RuntimeError("planted")

    weight[spoiled] = float("nan")
    try:
        with monkeypatch.context() as patch:
            patch.setattr(engine, "_has_read", broken)
            waiting = Waiting(3)
            engine.submit(*wishes, deliver=waiting)
            assert waiting.done.wait(300)
    finally:
        weight[spoiled] = before
    assert set(waiting.reasons.values()) == {FAILED}
    assert all(layer.both.isfinite().all() for layer in pages.layers)
    assert sorted(engine._free) == free
    assert sum(map(len, pages._of)) <= held
    every = [page for of in pages._of for page in of] + pages._free
    assert sorted(every) == list(range(2, pages.count))


def test_who_goes_in_the_middle_of_a_prompt_leaves_nothing_behind(small):
    """Some of its blocks were read, others not; its pages come back at once, and are empty."""
    made = Engine(small.opened, slots=4)
    pages, context = made.slots.pages, small.model.shape.context
    (wish,) = wishes_of(small, 1)
    wish = replace(wish, ids=(7,) * (context - 1), most=2)
    leaver = replace(wish, ids=(9,) * (context - 1))
    stays = [wish, replace(wish, number=1)]
    expected = write(made, [replace(one) for one in stays])
    waiting, begun, left = Waiting(4), [], []
    real, real_drop = made.slots.advance, made._drop

    def advance(*given):
        found = real(*given)
        texts = {id(text.wish): text for text in made._reading}
        gone = texts.get(id(leaver))
        if gone and any(part.slot == gone.slot for part in given[3]) and not begun:
            begun.append((gone, list(pages._of[gone.slot])))
            made.cancel(gone)
        return found

    def drop():
        real_drop()
        if begun and not left:  # before anybody else takes these pages
            free = set(begun[0][1]) <= set(pages._free)
            left.append(
                free and all(not layer.both[:, begun[0][1]].any() for layer in pages.layers)
            )

    made.slots.advance, made._drop = advance, drop
    first = replace(wish, ids=(11,) * (2 * BLOCK + 1))  # of four blocks at once, it takes three
    made.submit(first, leaver, *stays, deliver=waiting)
    assert waiting.done.wait(300)
    ((gone, held),) = begun
    assert 0 < gone.read - gone.reused < context - 1
    assert waiting.reasons[id(leaver)] == LATE
    assert not gone.written
    assert held
    assert left == [True]
    kept = [page for of in pages._of for page in of]
    assert sorted([*kept, *pages._free]) == list(range(2, pages.count))
    assert [(waiting.prompts[id(one)], waiting.pieces[id(one)]) for one in stays] == expected
    assert sorted(made._free) == [0, 1, 2, 3]
    made.close()


def test_who_goes_before_an_answer_has_begun_is_written_for_no_longer(server):
    """Gone while the first words are told, where nothing has been asked of the engine yet."""
    from nextword.serve.app import _Told
    from nextword.serve.asking import Asking

    engine = server.engine
    wish = Wish(ids=(5,), most=200, settings=SamplingSettings(temperature=0.0))

    async def gone(_):
        raise OSError("it has gone")

    async def words():
        yield b"never asked for"

    async def answer():
        asking = Asking(engine, Courier(), [wish])
        scope = {"type": "http", "asgi": {"spec_version": "2.4"}}
        with pytest.raises((ClientDisconnect, OSError)):
            await _Told(words(), asking)(scope, None, gone)
        return asking

    asking = asyncio.run(answer())
    assert asking.texts[0].growing.cancelled.is_set()


def test_texts_that_nobody_can_hold_are_refused_whole(small):
    made = Engine(small.opened, slots=1, queue=1)
    with pytest.raises(QueueFullError):
        made.submit(*wishes_of(small, 3), deliver=Waiting(0))
    assert made.load["waiting"] == 0
    made.close()


def test_slots_are_used_again(server):
    with ThreadPoolExecutor(16) as pool:
        asked = [
            pool.submit(server.post, "/v1/completions", prompt=f"The {n}", max_tokens=3)
            for n in range(60)
        ]
        assert {one.result().status_code for one in asked} == {200}
    assert len(server.engine._free) == server.engine.slots.count
    assert server.engine.load["writing"] == 0
