"""A run's weights, asked and taught on a copy."""

import json
import shutil

import httpx
import pytest
import torch

from nextword.prediction.candidates import predict
from nextword.prediction.loading import open_model
from nextword.prediction.scoring import score
from nextword.watch.asking import Weights, descend
from tests.watch.conftest import watching

SENTENCE = "We are all humans born to sing"


def test_it_says_what_predict_says_of_the_newest_weights(run):
    weights = Weights(run)
    opened = open_model(f"{run}@12")
    told = weights.ask("We are all")
    assert told["step"] == 12
    expected = predict(opened.model, opened.vocabulary, "We are all", 12).as_dict()
    assert told["candidates"] == expected["candidates"]
    assert len(told["judged"]) == len(opened.vocabulary.encode("We are all"))
    # A checkpoint that was saved meanwhile is taken.
    points = run / "checkpoints"
    shutil.move(points / "step-000012", run / "later")
    assert weights.ask("We")["step"] == 6
    shutil.move(run / "later", points / "step-000012")
    assert weights.ask("We")["step"] == 12


def test_a_copy_learns_a_sentence_and_the_run_never_knows(run):
    weights = Weights(run)
    before = weights.ask(SENTENCE)
    opened = weights.opened()
    kept = {name: weight.clone() for name, weight in opened.model.state_dict().items()}
    taught = weights.teach(SENTENCE, 3)
    assert [one["piece"] for one in taught["pieces"]] == [one["piece"] for one in before["judged"]]
    after = weights.ask(SENTENCE, taught=SENTENCE, times=3)
    for one, told, was in zip(after["judged"], taught["pieces"], before["judged"], strict=True):
        assert told["after"] == pytest.approx(one["probability"])
        assert told["before"] == pytest.approx(was["probability"])
    nats = [sum(one["nats"] for one in told["judged"]) for told in (before, after)]
    assert nats[1] < 0.8 * nats[0]
    for name, weight in opened.model.state_dict().items():
        assert torch.equal(weight, kept[name])
    assert weights.ask(SENTENCE) == before  # undone


def test_each_layer_is_asked_at_each_checkpoint(run):
    weights = Weights(run)
    columns = weights.by_step("We are all")["columns"]
    assert [one["step"] for one in columns] == [6, 12]
    for one in columns:
        opened = open_model(f"{run}@{one['step']}")
        assert len(one["layers"]) == len(opened.model.model.layers) + 1
        told = predict(opened.model, opened.vocabulary, "We are all", 1).as_dict()["candidates"][0]
        assert one["layers"][-1]["top"][0] == (told["piece"], pytest.approx(told["probability"]))
    assert weights.by_step("We are all")["columns"] == columns
    other = weights.by_step("We")["columns"]
    assert other != columns
    (run / "checkpoints" / "step-000006" / "model.safetensors").write_bytes(b"damaged")
    again = Weights(run).by_step("We")["columns"]
    assert again == other[1:]


def test_a_small_step_lowers_the_loss_by_what_its_slope_says(run):
    opened = open_model(str(run))
    ids = [opened.vocabulary.begin_id, *opened.vocabulary.encode(SENTENCE)]
    first = score(opened.model, opened.vocabulary, SENTENCE).nats_per_token
    assert descend(opened.model, ids, share=1e-3) == pytest.approx(first, rel=1e-5)
    second = score(opened.model, opened.vocabulary, SENTENCE).nats_per_token
    assert (first - second) / first == pytest.approx(1e-3, rel=0.05)


def test_paths_give_what_the_run_wrote(run):
    with watching(run) as (address, _), httpx.Client(base_url=address, timeout=60) as client:
        get = client.get
        assert get("/api/runs").json() == {"runs": ["small"]}
        told = get("/api/run/small").json()
        assert told["ended"]
        assert told["running"] is None
        assert told["latest"]["step"] == 12
        assert [one["step"] for one in told["evaluations"]] == [4, 8, 12]
        assert {mark["name"] for mark in told["ruler"]} >= {"bigram", "5-gram", "gzip"}
        ruler = [json.loads(one) for one in (run / "metrics.jsonl").read_text().splitlines()]
        (ruler,) = (one for one in ruler if one["event"] == "ruler")
        blind = next(mark for mark in told["ruler"] if mark["name"] == "uniform")
        assert blind["nats"] == pytest.approx(torch.tensor(float(told["entries"])).log().item())
        assert len(get("/api/curve/small?points=100").json()["step"]) == 12
        moments = get("/api/moments/small").json()
        assert [one["step"] for one in moments][-1] == 12
        assert get(f"/api/moments/small?since={len(moments) - 1}").json() == moments[-1:]
        for path in ("/api/run/other", "/api/curve/small?points=x", "/api/run/..%2f", "/nothing"):
            answered = get(path)
            assert answered.status_code in (400, 404)
            assert answered.json()["error"]["message"]


def test_wrong_questions_are_named(run):
    with watching(run) as (address, _), httpx.Client(base_url=address, timeout=60) as client:
        post = client.post
        for body in ({}, {"text": 3}, {"text": "x" * 5000}, {"text": "x", "top": 0}):
            assert post("/api/ask/small", json=body).status_code == 400
        assert post("/api/teach/small", json={"text": ""}).status_code == 400
        for point in (run / "checkpoints").iterdir():
            shutil.rmtree(point)
        answered = post("/api/ask/small", json={"text": "We"})
        assert answered.status_code == 400
        assert "no checkpoint was saved yet" in answered.json()["error"]["message"]


def test_only_the_page_itself_may_tell_a_run_what_to_do(run):
    with watching(run) as (address, token):
        for given in ("", "wrong", token + "x"):
            answered = httpx.post(
                f"{address}/api/tell/small", json={"what": "stop"},
                headers={"X-Nextword-Token": given},
            )  # fmt: skip
            assert answered.status_code == 403
        headers = {"X-Nextword-Token": token}
        for what, words in (("stop", "nobody trains"), ("burn", "one of")):
            answered = httpx.post(f"{address}/api/tell/small", json={"what": what}, headers=headers)
            assert answered.status_code == 400
            assert words in answered.json()["error"]["message"]
        assert httpx.get(address, headers={"Host": "evil.example"}).status_code == 421
        assert httpx.get(address, headers={"Origin": "https://evil.example"}).status_code == 403
