"""The tour shows the run's own numbers, and its commands work."""

import re
import shlex

import pytest

import nextword
from nextword.explanation.tour import WORKED_PROMPT
from nextword.rendering.formatting import chance
from nextword.rendering.tour_page import describe_stop, stop_markdown

STOPS = 11
NAMES = ("Ada", "Adam", "Eva", "Fred", "Dora", "Leo", "Lily", "John", "Anna", "Frank")


@pytest.fixture(scope="module")
def walk(shared, small_run):
    import os

    before = {key: os.environ.get(key) for key in ("NEXTWORD_RUNS", "NEXTWORD_CACHE")}
    os.environ.update(
        NEXTWORD_RUNS=str(shared.folder / "runs"), NEXTWORD_CACHE=str(shared.folder / "cache")
    )
    try:
        model = nextword.load(small_run)
        return model, model.tour()
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key)
            else:
                os.environ[key] = value


def test_there_are_all_stops_each_with_numbers_and_something_to_try(walk):
    stops = walk[1]
    assert len(stops) == STOPS
    assert len({stop.anchor for stop in stops}) == STOPS
    for stop in stops:
        assert stop.try_it.startswith("nextword ")
        assert stop.shown
        said = describe_stop(stop, 1, STOPS)
        assert max(map(len, said.splitlines())) <= 130
        assert stop.title in stop_markdown(stop, 1)
        assert "  \n" not in stop_markdown(stop, 1)


def test_numbers_are_the_models(walk):
    model, stops = walk
    by_name = {stop.anchor: " ".join([stop.words, *stop.shown, stop.meaning]) for stop in stops}
    best = model.predict(WORKED_PROMPT, 1).candidates[0]
    assert f"{best.logit:.4f}" in by_name["softmax"]
    assert f"{model.explain(WORKED_PROMPT + ' make mistakes').nats:.4f}" in by_name["average"]
    assert f"{model.opened.model.shape.parameters():,}" in by_name["step"]
    assert f"{len(model.vocabulary):,}" in by_name["vocabulary"]
    assert chance(model.replay().judged[0][0].probabilities[6]) in by_name["step"]
    bits = float(re.search(r"sum of −log2 P +([\d.]+)", by_name["bits"])[1])
    nats = model.explain(WORKED_PROMPT + " make mistakes").nats
    assert bits == pytest.approx(nats / 0.693147, abs=0.06)


def test_labels_are_learned_with_the_gradient_that_finite_differences_give(walk):
    """And the loss at first is ln 2, for each label was as likely."""
    import math

    import torch

    from nextword.explanation import labels

    lesson = labels.learn_labels(walk[0].opened.model, walk[0].vocabulary)
    assert lesson.before == pytest.approx(math.log(2))
    assert lesson.after < lesson.before - 0.05
    known = math.fsum(-math.log(one.probability) for one in lesson.learned) / len(lesson.learned)
    assert lesson.after == pytest.approx(known)
    assert not {one.text for one in lesson.learned} & {one.text for one in lesson.asked}
    assert lesson.right == sum(one.probability > 0.5 for one in lesson.asked)
    states = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    right, matrix = torch.tensor([0, 1, 1, 0, 1]), torch.zeros(2, 3, dtype=torch.float64)
    before = labels._loss(states, matrix, right)
    labels._descend(states, matrix, right)
    after = labels._loss(states, matrix, right)
    assert after < before
    slope = torch.zeros_like(matrix)
    for place in range(6):
        moved = matrix.clone()
        moved.view(-1)[place] += 1e-5
        slope.view(-1)[place] = (labels._loss(states, moved, right) - after) / 1e-5
    again = matrix.clone()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(labels, "STEPS", 1)
        labels._descend(states, again, right)
    rate = labels.RATE / float(states.square().sum(dim=1).mean())
    torch.testing.assert_close(matrix - again, rate * slope, atol=1e-4, rtol=1e-3)


def test_what_is_to_be_tried_works(walk, shared):
    (shared.folder / "FILE").write_text("We are all humans born to make mistakes.")
    (shared.folder / "FILE.nw").unlink(missing_ok=True)
    rows = "".join(f"{name} was a clerk.,{'ab'[number % 2]}\n" for number, name in enumerate(NAMES))
    (shared.folder / "labels.csv").write_text(f"text,label\n{rows}")
    for stop in walk[1]:
        done = shared.nextword(*shlex.split(stop.try_it)[1:])
        assert done.returncode == 0, f"{stop.try_it}\n{done.stderr}"


@pytest.mark.parametrize("kind", ["char", "word", "byte"])
def test_every_kind_of_vocabulary_has_a_tour(place, kind):
    (place.folder / "t.txt").write_text("We are all humans born to make mistakes. " * 300)
    options = {"training.steps": 2, "vocabulary.kind": kind}
    model = nextword.train(place.folder / "t.txt", options=options)
    stops = model.tour()
    assert len(stops) == STOPS
    words = " ".join(stop.meaning for stop in stops)
    assert ("can never say it" in words) == (kind != "byte")


def test_a_context_shorter_than_the_worked_sentence_is_enough(place):
    (place.folder / "t.txt").write_text("We are all humans born to make mistakes. " * 40)
    options = {"training.steps": 2, "vocabulary.kind": "byte", "model.context": 2}
    model = nextword.train(place.folder / "t.txt", options=options)
    stops = model.tour()
    assert "every piece of this vocabulary is a single byte" in stops[3].meaning
    model.report("r.html")
    assert (place.folder / "r.html").is_file()


def test_a_model_without_a_run_has_a_tour(walk, tmp_path):
    import shutil

    shutil.copytree(walk[0].opened.folder, tmp_path / "alone")
    assert len(nextword.load(tmp_path / "alone").tour()) == STOPS


def test_the_verb_shows_one_stop_or_all(shared, small_run):
    one = shared.nextword("tour", small_run, "--stop", "6")
    assert one.returncode == 0, one.stderr
    assert one.stdout.startswith(f"── 6 of {STOPS}")
    assert one.stdout.count("Try: ") == 1
    all_of_them = shared.nextword("tour", small_run)
    assert all_of_them.stdout.count("Try: ") == STOPS
    wrong = shared.nextword("tour", small_run, "--stop", str(STOPS + 1))
    assert wrong.returncode == 2
    assert f"1 to {STOPS}" in wrong.stderr


def test_without_a_run_it_trains_its_own_once(place, monkeypatch):
    from nextword import pretrain
    from nextword.settings import resolve

    real, asked = pretrain.train, []

    def fewer_steps(paths, settings, **rest):
        asked.append(rest["name"])
        return real(paths, resolve(given={"training.steps": 2, "corpus.stories": 60}), **rest)

    monkeypatch.setattr(pretrain, "train", fewer_steps)
    from nextword.cli import explain

    assert explain._small_run() == "tour"
    assert explain._small_run() == "tour"
    assert asked == ["tour"]
    assert (place.folder / "runs" / "tour" / "checkpoints").is_dir()
