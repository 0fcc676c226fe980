"""What was judged on the way is what the checkpoints say when they are asked again."""

import json
import math

import pytest

import nextword
from nextword.base.errors import RunError
from nextword.explanation.options import ExplanationSettings
from nextword.explanation.replay import (
    WORKED_SENTENCE,
    choose_pins,
    judge_pins,
    read_pins,
    read_replay,
    replay_every,
)
from nextword.rendering.replay import chosen_moments, describe_replay, replay_html
from nextword.settings import as_toml, resolve
from nextword.training.checkpoint import list_checkpoints


def test_the_replay_is_what_the_checkpoints_say(shared_environment, small_run):
    run = shared_environment.folder / "runs" / small_run
    replay, saved = read_replay(run), list_checkpoints(run)
    assert len(saved) >= 2
    for checkpoint in saved:
        model = nextword.load(f"{small_run}@{checkpoint.step}")
        again = judge_pins(model.opened.model, model.vocabulary, replay.pins)
        assert again == replay.judged[replay.steps.index(checkpoint.step)]
    for number, pin in enumerate(replay.pins):
        last = replay.judged[-1][number]
        model = nextword.load(f"{small_run}@last")
        for place, others in enumerate(last.others[:3]):
            told = model.predict(model.vocabulary.decode(list(pin.ids[:place])), top=5).candidates
            assert [one.piece for one in told[1:]] == [piece for piece, _ in others]
            odds = [one.probability for one in told[1:]]
            assert odds == pytest.approx([odd for _, odd in others], rel=1e-3)
        judged = nextword.load(f"{small_run}@last").explain(pin.text)
        if [position.id for position in judged.positions] == list(pin.ids):
            nats = [position.nats for position in judged.positions]
            assert nats == pytest.approx(last.nats, abs=1e-5)


def test_it_is_judged_at_the_start_at_every_evaluation_and_at_the_end(
    shared_environment, small_run
):
    run = shared_environment.folder / "runs" / small_run
    events = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    evaluated = {event["step"] for event in events if event["event"] == "evaluation"}
    judged = [event["step"] for event in events if event["event"] == "replay"]
    assert {0, 12} | evaluated <= set(judged)
    assert len(judged) == len(set(judged))


def test_at_step_0_every_piece_is_about_equally_likely(shared_environment, small_run):
    model = nextword.load(small_run)
    first = model.replay().judged[0]
    for one in first:
        assert one.loss == pytest.approx(math.log(len(model.vocabulary)), abs=0.02)


def test_the_worked_example_and_three_held_out_sentences_are_pinned(shared_environment, small_run):
    run = shared_environment.folder / "runs" / small_run
    pins = read_pins(run)
    assert pins[0].text == WORKED_SENTENCE
    prepared = nextword.load(small_run)._prepared()
    texts = [
        prepared.vocabulary.decode(prepared.holdout.document(number).tolist())
        for number in range(prepared.holdout.num_documents)
    ]
    assert len(pins) == 4
    for pin in pins[1:]:
        assert any(text.startswith(pin.text) for text in texts)
        assert pin.text.endswith(".") or len(pin.ids) == 24


def test_sentences_can_be_named_and_a_resumed_run_keeps_them(place):
    options = {
        "training.steps": 6,
        "training.checkpoint_every": 3,
        "corpus.stories": 60,
        "explanation.pin": ("A story.\nIt ends.", 'Say "no".'),
        "explanation.replay_every": 2,
    }
    nextword.train(name="pinned", options=options)
    run = place.folder / "runs" / "pinned"
    whole = read_replay(run)
    assert [pin.text for pin in whole.pins] == ["A story.\nIt ends.", 'Say "no".']
    assert whole.steps == (0, 2, 3, 4, 6)
    again = nextword.train(resume="pinned@3")
    assert again.replay() == whole


def test_a_sentence_longer_than_the_context_is_cut_and_that_is_said(place):
    (place.folder / "one.txt").write_text("A cat sat on a mat, and a dog sat on the cat. " * 200)
    model = nextword.train(place.folder / "one.txt", options={"training.steps": 2})
    long = ExplanationSettings(pin=("A cat sat on a mat, and a dog sat.", "A cat"))
    pins = choose_pins(model._prepared(), long, 4)
    assert len(pins[0].ids) == 4
    assert "its first 4 of" in pins[0].source
    assert pins[1].source == "asked for"


def test_many_long_sentences_are_judged_one_after_the_other(
    shared_environment, small_run, monkeypatch
):
    opened = nextword.load(small_run).opened
    pins = read_pins(shared_environment.folder / "runs" / small_run)
    together = judge_pins(opened.model, opened.vocabulary, pins)
    monkeypatch.setattr("nextword.explanation.replay.JUDGED_AT_ONCE", 1)
    monkeypatch.setattr("nextword.explanation.replay.LOGITS_AT_ONCE", 5000)
    for alone, one in zip(judge_pins(opened.model, opened.vocabulary, pins), together, strict=True):
        assert alone.nats == pytest.approx(one.nats, abs=1e-5)
        assert alone.likeliest == one.likeliest


def test_a_list_of_texts_is_written_down_and_read_again():
    import tomllib

    texts = ("plain", 'quo"ted\\', "two\nlines\t\x7f", "smile 😀")
    settings = resolve(given={"explanation.pin": texts})
    assert resolve(tomllib.loads(as_toml(settings))) == settings


def test_a_short_text_gives_places_far_apart(place):
    (place.folder / "one.txt").write_text("A cat sat on a mat, and a dog sat on the cat. " * 200)
    model = nextword.train(place.folder / "one.txt", options={"training.steps": 2})
    pins = choose_pins(model._prepared(), ExplanationSettings(), 16)
    assert len(pins) == 4
    assert all(0 < len(pin.ids) <= 16 for pin in pins)


def test_moments_shown_begin_and_end_with_the_run():
    for count in (1, 2, 5, 7, 8, 41, 300):
        chosen = chosen_moments(tuple(range(count)), 7)
        assert chosen[0] == 0
        assert chosen[-1] == count - 1
        assert len(chosen) <= 7
        assert chosen == sorted(set(chosen))


def test_the_table_holds_the_probabilities(shared_environment, small_run):
    replay = nextword.load(small_run).replay()
    said = describe_replay(replay)
    assert f"step {replay.steps[-1]}" in said
    assert f"{replay.judged[-1][0].loss:.4f}" in said
    assert replay_html(replay) == replay._repr_html_()
    assert replay_every(ExplanationSettings(), 800) == 20


def test_a_run_without_replay_says_so(tmp_path):
    with pytest.raises(RunError, match="no sentences were judged"):
        read_replay(tmp_path)


def test_the_verb_prints_text_and_json(shared, small_run):
    done = shared.nextword("replay", small_run)
    assert done.returncode == 0, done.stderr
    assert WORKED_SENTENCE in done.stdout
    values = json.loads(shared.nextword("replay", small_run, "--json").stdout)
    assert values["moments"][0]["step"] == 0


def test_a_checkpoints_path_and_a_step_lead_to_their_run(shared, small_run):
    whole = shared.nextword("replay", small_run).stdout
    assert shared.nextword("replay", f"{small_run}@last").stdout == whole
    folder = next((shared.folder / "runs" / small_run / "checkpoints").glob("step-*"))
    assert shared.nextword("replay", str(folder)).stdout == whole
    gone = shared.nextword("replay", f"{small_run}@77")
    assert gone.returncode == 2
    assert "no such checkpoint" in gone.stderr
