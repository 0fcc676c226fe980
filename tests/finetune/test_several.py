"""Several labels of a text: learned, saved and scored as `transformers` has them."""

import json
import random

import numpy as np
import pytest
import torch

import nextword
from nextword.base.errors import NextwordError
from nextword.finetune import finetune
from nextword.finetune.labels import as_array
from nextword.model.labels import SequenceClassifier
from nextword.model.layouts import LabelHead
from nextword.objectives.labelled import label
from nextword.prediction.labels import rows_of
from nextword.prediction.several import (
    Always,
    all_several,
    best_without_reading,
    score_several,
)
from nextword.settings import resolve
from nextword.training.step import LabelLoss
from tests.compared import near
from tests.finetune.test_labels import TEXT
from tests.model.test_layouts import jogged
from tests.model.test_transformer import SHAPE

pytestmark = pytest.mark.usefixtures("one_thread")

ANIMALS = ("cat", "dog")


def examples(count=80, seed=0):
    """Which animals a text names: both, one, or none."""
    source = random.Random(seed)
    for _ in range(count):
        words = source.choices(["the", "mat", "sea", "warm"], k=source.randrange(3, 9))
        there = [animal for animal in ANIMALS if source.random() < 0.5]
        for animal in there:
            words.insert(source.randrange(len(words)), animal)
        yield {"text": " ".join(words), "label": there}


@pytest.fixture(params=["causal", "masked"])
def begun(request, place):
    (place.folder / "t.txt").write_text(TEXT)
    options = {"training.steps": 6, "objective.name": request.param, "model.context": 32}
    options |= {"model.hidden_size": 64, "training.written": 0.0}
    nextword.train(place.folder / "t.txt", name="begun", options=options)
    (place.folder / "labels.jsonl").write_text("\n".join(map(json.dumps, examples())))
    return request.param


def taught(place, **options):
    given = {"finetune.steps": 80, "finetune.learning_rate": 0.004, **options}
    return finetune("begun", [str(place.folder / "labels.jsonl")], resolve(given=given))


def test_several_labels_are_learned_and_transformers_says_the_same(begun, place):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

    done = taught(place)
    assert done.task == "multi_label"
    scores = done.scores
    assert scores.micro_f1 > scores.baseline_micro_f1 + 0.1
    assert scores.exact / scores.examples > scores.baseline_exact / scores.examples + 0.2
    model = nextword.load(str(done.folder))
    theirs = AutoModelForSequenceClassification.from_pretrained(model.opened.folder).eval()
    assert theirs.config.problem_type == "multi_label_classification"
    assert list(theirs.config.id2label.values()) == list(ANIMALS)
    rows = list(examples(7, seed=5))
    texts = [row["text"] for row in rows]
    batch = AutoTokenizer.from_pretrained(model.opened.folder)(
        texts, padding=True, return_tensors="pt"
    )
    given = torch.tensor([[float(animal in row["label"]) for animal in ANIMALS] for row in rows])
    with torch.no_grad():
        there = theirs(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=given
        )
    for one, row in zip(model.classify(*texts), there.logits, strict=True):
        odds = dict(zip(ANIMALS, row.double().sigmoid().tolist(), strict=True))
        assert one.probabilities.keys() == odds.keys()
        near(
            "transformers, probabilities",
            [one.probabilities[name] for name in odds],
            list(odds.values()),
            most=1e-5,
        )
        assert set(one.labels) == {animal for animal in ANIMALS if odds[animal] > 0.5}
        assert one.as_dict()["labels"] == one.labels
    classify = pipeline("text-classification", model=str(model.opened.folder), top_k=None)
    for one, said in zip(model.classify(*texts), classify(texts), strict=True):
        for their in said:
            near("pipelines, scores", one.probabilities[their["label"]], their["score"], most=1e-5)
    # The loss of the same batch, as training counts it.
    labeller, shape = model.opened.labeller, model.opened.model.shape
    framed = rows_of(model.vocabulary, texts, shape.context, causal=shape.causal).rows
    fill_id = model.vocabulary.pad_id
    part = label(framed, given.numpy(), np.ones(len(rows), dtype=np.float32), fill_id)
    with torch.no_grad():
        ours = LabelLoss(labeller)(*(torch.from_numpy(array) for array in part)) / part.num_targets
    assert float(ours) == pytest.approx(float(there.loss), rel=1e-5)


def test_the_gradient_is_that_of_yes_or_no_to_each_label():
    """(sigmoid(logit) - label) / labels, worked out by hand."""
    torch.manual_seed(0)
    model = jogged(
        SequenceClassifier(SHAPE, LabelHead(("a", "b", "c"), is_number=False, several=True))
    )
    given = np.array([[1, 0, 1], [0, 0, 0]], dtype=np.float32)
    part = label([[0, 5, 6], [0, 7]], given, np.array([1, 2], dtype=np.float32), 1)
    arrays = [torch.from_numpy(array) for array in part]
    with torch.no_grad():
        features = model.features(*arrays[:2])
        odds = model.logits(*arrays[:2]).sigmoid()
    LabelLoss(model)(*arrays).backward()
    distance = (odds - arrays[2]) / 3 * arrays[3][:, None]
    torch.testing.assert_close(model.score.weight.grad, distance.T @ features)


def test_scores_worked_by_hand():
    logits = torch.tensor([[2, -1, 0.5], [1, 1, -3], [-1, -1, -1], [-2, 4, 1]]).double()
    true = [(0, 2), (0,), (), (2,)]
    names, always = ("a", "b", "c"), Always((0, 2), (2,))
    found = score_several(logits, true, names, always)
    # said: a c | a b | none | b c; right: a c, a, none, c.
    assert found.right.tolist() == [2, 0, 2]
    assert found.said.tolist() == [2, 2, 2]
    assert found.true.tolist() == [2, 0, 2]
    assert found.micro_f1 == pytest.approx(2 * 4 / (6 + 4))
    assert found.macro_f1 == pytest.approx((2 * 2 / 4 + 0 + 2 * 2 / 4) / 3)
    assert found.exact == 2
    # Always a and c: right 2 and 2 of 4 each.
    assert found.baseline_micro_f1 == pytest.approx(2 * 4 / (8 + 4))
    assert found.baseline_macro_f1 == pytest.approx((2 * 2 / 6 + 2 * 2 / 6) / 2)
    assert found.baseline_exact == 1
    by_hand = 0.0
    for row, labels in zip(logits.tolist(), true, strict=True):
        for place, logit in enumerate(row):
            p = 1 / (1 + np.exp(-logit))
            by_hand -= np.log(p if place in labels else 1 - p)
    assert found.loss == pytest.approx(by_hand / 12)
    parts = [
        score_several(logits[part], true[part], names, always)
        for part in (slice(0, 1), slice(1, 4))
    ]
    joined = all_several(parts)
    assert joined.as_dict() == {**found.as_dict(), "loss": pytest.approx(found.loss)}


def test_the_baseline_is_the_best_that_does_not_read():
    labels = [(0,), (0, 1), (0, 1), (2,), (), ()]
    best = best_without_reading(labels, 3)
    assert best.commonest in ((0, 1), ())

    def micro(said):
        right = sum(len({*said} & {*one}) for one in labels)
        return 2 * right / (len(said) * len(labels) + sum(map(len, labels)))

    from itertools import combinations

    tried = [said for size in (1, 2, 3) for said in combinations(range(3), size)]
    assert micro(best.labels) == max(map(micro, tried))


def test_labels_are_laid_out_for_the_loss():
    class Known:
        several, is_number, names = True, False, ("a", "b", "c")

    given = as_array([(0, 2), (), (1,)], Known)
    assert given.dtype == np.float32
    assert given.tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]


def test_the_verbs_show_each_labels_probability(place):
    (place.folder / "t.txt").write_text(TEXT)
    nextword.train(
        place.folder / "t.txt", name="begun", options={"training.steps": 2, "model.hidden_size": 64}
    )
    rows = [*examples(60), {"text": "unlabelled", "label": None}]
    rows.append({"text": "the cat " * 999, "label": ["cat"]})
    (place.folder / "labels.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(NextwordError, match="class-weights balanced"):
        taught(place, **{"finetune.class_weights": "balanced"})
    assert [one.name for one in (place.folder / "runs").iterdir()] == ["begun"]
    done = place.nextword("finetune", "begun", "labels.jsonl", "--finetune.steps", "3", "--json")
    assert done.returncode == 0, done.stderr
    for words in (
        *("any number of labels", "is a list; --labels.kind for another", "micro-F1", "macro-F1"),
        *("always saying", "exact", "binary cross-entropy", "1 of 62 rows left out"),
        "1 of 62 rows longer than the context, and cut at their end",
    ):
        assert words in done.stderr
    values = json.loads(done.stdout)
    assert values["task"] == "multi_label"
    assert values["rows"]["left_out"] == {"no_label": 1}
    assert values["rows"]["learned_from"] + values["rows"]["held_out"] == 61
    assert values["rows"]["shortened"] == 1
    said = place.nextword("classify", "labels-1", "the cat")
    lines = said.stdout.splitlines()
    assert {line.split()[0] for line in lines[:2]} == {"cat", "dog"}
    assert lines[2].startswith("likelier than not: ")
    said = json.loads(place.nextword("classify", "labels-1", "the cat", "--json").stdout)
    assert set(said["probabilities"]) == {"cat", "dog"}
    assert isinstance(said["labels"], list)
