"""Teachers: what models trained before expect, as one learns it who is trained now."""

import json
import shutil

import numpy as np
import pytest
import torch

import nextword
from nextword.base.errors import NextwordError
from nextword.prediction.teachers import Teachers
from nextword.targets.batch import Batch
from tests.model.test_transformer import SHAPE, scattered
from tests.training.test_layers import ids
from tests.training.test_resume import OPTIONS, assert_same, metrics

END, ENTRIES = 3, SHAPE.vocab_size


def another():
    """A network of other weights."""
    model = scattered()
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(1.3)
    return model


def plainly(model, inputs):
    """P(next), by the network's own logits."""
    with torch.no_grad():
        return model(torch.from_numpy(inputs)).softmax(-1).numpy()


def batch_of(inputs):
    return Batch(inputs, np.roll(inputs, -1, axis=1))


def test_what_a_teacher_expects_is_what_the_model_says():
    inputs = ids(3, 20)
    found = Teachers([scattered()], ENTRIES).odds(batch_of(inputs))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, plainly(scattered(), inputs), atol=1e-6)


def test_of_several_the_logarithms_are_averaged():
    inputs = ids(2, 20)
    found = Teachers([scattered(), another()], ENTRIES).odds(batch_of(inputs))
    means = np.sqrt(plainly(scattered(), inputs) * plainly(another(), inputs))
    np.testing.assert_allclose(found, means / means.sum(-1, keepdims=True), atol=1e-6)
    assert np.abs(found - plainly(scattered(), inputs)).max() > 1e-3


def test_entries_that_no_token_has_are_never_expected():
    inputs = ids(2, 20) % (ENTRIES - 5)
    found = Teachers([scattered()], ENTRIES - 5).odds(batch_of(inputs))
    assert found.shape == (2, 20, ENTRIES - 5)
    np.testing.assert_allclose(found.sum(-1), 1, atol=1e-5)


def test_documents_are_read_apart_where_they_are_learned_apart():
    inputs = ids(1, 24)
    inputs[inputs == END] = END + 1
    inputs[0, 9] = END
    apart = Teachers([scattered()], ENTRIES, END).odds(batch_of(inputs))
    alone = plainly(scattered(), inputs[:, 9:])
    np.testing.assert_allclose(apart[:, 9:], alone, atol=1e-5)
    across = Teachers([scattered()], ENTRIES).odds(batch_of(inputs))
    assert np.abs(across[:, 9:] - alone).max() > 1e-3
    # Where the batch says which text is whose, and where in it each token stands, ids say nothing.
    documents, places = np.repeat([[0, 1]], 12, axis=1), np.tile(np.arange(12), 2)[None]
    told = batch_of(inputs)._replace(documents=documents, positions=places)
    found = Teachers([scattered()], ENTRIES, END).odds(told)
    np.testing.assert_allclose(found[:, 12:], plainly(scattered(), inputs[:, 12:]), atol=1e-5)


def test_whoever_divides_the_rows_is_told_the_same():
    batch = batch_of(ids(5, 20))
    teachers = Teachers([scattered()], ENTRIES)
    parts = [
        teachers.odds(Batch(batch.inputs[row : row + 1], batch.targets[row : row + 1]))
        for row in range(5)
    ]
    np.testing.assert_allclose(np.concatenate(parts), teachers.odds(batch), atol=1e-6)


def test_what_is_added_takes_as_much_from_the_right_tokens():
    batch = batch_of(ids(2, 20))
    teachers = Teachers([scattered()], ENTRIES)
    added = teachers.added(batch, 0.25)
    ones = np.eye(ENTRIES)[batch.targets]
    np.testing.assert_allclose(added, 0.25 * (teachers.odds(batch) - ones), atol=1e-6)


@pytest.fixture
def teacher(place, trained):
    """A run, as others may learn from it."""
    trained.copy_to(place, "train", "--name", "first", *OPTIONS)
    return place.folder / "runs" / "first"


def taught(place, name, *words):
    """Train as the teacher was trained, but for what is said."""
    done = place.nextword("train", "--name", name, *OPTIONS, "--training.teacher", *words)
    assert done.returncode == 0, done.stderr
    return place.folder / "runs" / name


def test_a_run_that_goes_on_is_told_the_same(place, teacher):
    whole = taught(place, "whole", "first@10, first")
    parts = whole.with_name("parts")
    shutil.copytree(whole, parts)
    done = place.nextword("train", "--resume", "parts@5")
    assert done.returncode == 0, done.stderr
    assert_same(whole, parts)
    with pytest.raises(AssertionError):
        assert_same(whole, teacher)
    with pytest.raises(AssertionError):
        assert_same(whole, taught(place, "other", "first@10"))
    # A recipe names the teachers by their folders, and so gives the same run from anywhere.
    kept = json.loads((whole / "run.json").read_text())["teachers"]
    folders = [str(teacher / "checkpoints" / f"step-0000{step}") for step in (10, 15)]
    assert list(kept) == folders
    assert ",".join(folders) in (whole / "settings.toml").read_text()


@pytest.mark.parametrize("what", ["another", "gone"])
def test_a_run_does_not_go_on_with_another_teacher(place, teacher, what):
    taught(place, "second", "first@10")
    weights = teacher / "checkpoints" / "step-000010" / "model.safetensors"
    if what == "gone":
        weights.unlink()
    else:
        shutil.copy(teacher / "checkpoints" / "step-000015" / weights.name, weights)
    done = place.nextword("train", "--resume", "second@5")
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert str(weights.parent) in done.stderr
    assert "this run learns from the model there" in done.stderr
    assert "put back what was there, or train anew" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--training.teacher", "nobody"], "nobody"),
        (["--training.teacher", ""], "a name is missing"),
        (["--training.teacher", "first,"], "a name is missing"),
        (["--training.teacher", "first", "--vocabulary.size", "300"], "--vocabulary.source"),
        (["--training.teacher", "first", "--model.context", "128"], "--model.context 64"),
        (["--training.teacher", "first", "--objective.name", "masked"], "reads both sides"),
        (
            ["--training.teacher", "first", "--training.soft-targets", "0"],
            "nothing would be learned from it",
        ),
    ],
)
def test_a_teacher_who_cannot_teach_is_refused_in_one_line(place, teacher, words, said):
    given = [*OPTIONS]
    if "--model.context" in words:
        given = OPTIONS[: OPTIONS.index("--model.context")]
    done = place.nextword("train", "--name", "second", *given, *words)
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("nextword: ")
    assert said in last
    assert "Traceback" not in done.stderr
    assert not (place.folder / "runs" / "second").exists()


def test_a_model_that_fills_in_words_is_no_teacher(place, trained):
    options = ["--objective.name", "masked", "--corpus.stories", "300", "--training.steps", "2"]
    trained.copy_to(place, "train", "--name", "both", *options)
    done = place.nextword("train", "--corpus.stories", "300", "--training.teacher", "both")
    assert done.returncode == 2
    assert "both@2 does not say what comes next; name a model that does" in done.stderr


def test_several_texts_can_be_learned_from_a_teacher(place):
    (place.folder / "one.txt").write_text("the cat sat on the mat. " * 200)
    (place.folder / "two.txt").write_text("a dog ran up a hill. " * 200)
    asked = {"training.steps": 3, "model.context": 16, "model.depth": 1}
    texts = ["one.txt=1", "two.txt=3"]
    nextword.train(*texts, name="first", options=asked)
    taught = {**asked, "training.teacher": "first"}
    nextword.train(*texts, name="second", options=taught)
    first, second = (metrics(place.folder / "runs" / name) for name in ("first", "second"))
    assert len(first) == len(second)
    assert first != second
    with pytest.raises(NextwordError, match="several texts are mixed"):
        nextword.train(*texts, options={**asked, "training.soft_targets": 0.5})


def test_a_run_says_from_whom_it_learns(place, teacher):
    done = place.nextword("train", "--name", "second", *OPTIONS, "--training.teacher", "first")
    assert "at first 100% of each target is what its teacher expects there" in done.stderr
    given = ["--training.teacher", "first@5,first@15", "--training.soft-targets", "0.5"]
    done = place.nextword("train", "--name", "third", *OPTIONS, *given)
    assert "at first 50% of each target is what its 2 teachers expect together" in done.stderr


def test_a_comma_in_a_path_parts_nothing(place, teacher):
    saved = max((teacher / "checkpoints").iterdir())
    folders = [place.folder / "one, two", place.folder / "it,"]
    for folder in folders:
        shutil.copytree(saved, folder)
    asked = f"{folders[0]}, first@5 ,{folders[1]}"
    done = place.nextword("train", "--name", "second", *OPTIONS, "--training.teacher", asked)
    assert "is what its 3 teachers expect together" in done.stderr


def test_many_names_are_no_path_that_is_too_long(place, teacher):
    asked = ",".join(f"first@{step}" for step in [5, 15] * 20)
    done = place.nextword("train", "--name", "second", *OPTIONS, "--training.teacher", asked)
    assert "is what its 40 teachers expect together" in done.stderr
