"""Examples are looked at, read and divided; scores are those worked out by hand."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nextword.base.errors import CorpusError
from nextword.corpus.examples import Row, read_rows
from nextword.corpus.options import CorpusSettings
from nextword.finetune.examples import Labelled, divide, labelled, look
from nextword.objectives.labelled import between_ends, in_order
from nextword.objectives.options import FinetuneSettings, LabelsSettings
from nextword.prediction.labels import Said, all_classes, score_classes, score_numbers
from nextword.rendering.finetuned import describe_said, describe_taught

PLAIN = FinetuneSettings()


def rows(values):
    return [Row(f"a.jsonl, line {number}", one) for number, one in enumerate(values, start=1)]


@pytest.mark.parametrize(
    ("values", "task"),
    [
        ([{"text": "a", "label": "x"}], "labels"),
        ([{"text": "a", "label": "1.5"}, {"text": "b", "label": 3}], "labels"),
        ([{"text": "a", "label": None}], "labels"),
        ([{"text": "a", "lable": "x"}], "labels"),
        ([{"prompt": "a", "answer": "b"}], "answers"),
        ([{"messages": []}], "answers"),
        ([{"prompt": "a", "text": "t", "label": "b"}], "labels"),
        ([{"prompt": "a", "completion": "b", "label": True}], "answers"),
        ([{"id": 1}, {"question": "a", "answer": "b"}], "answers"),
    ],
)
def test_the_task_is_found_by_looking(values, task):
    assert look(rows(values), PLAIN) == task


def test_the_task_can_be_given():
    both = rows([{"text": f"t{n}", "label": n % 3, "messages": []} for n in range(30)])
    assert look(both, PLAIN) == "labels"
    assert look(both, FinetuneSettings(task="answers")) == "answers"
    given_ = FinetuneSettings(task="regression")
    assert look(both, given_) == "labels"
    assert labelled(both, given_).is_number
    assert labelled(both, PLAIN).names == ("0", "1", "2")
    chats = rows([{"messages": [], "text": "t"}])
    assert look(chats, PLAIN) == "answers"
    assert look(chats, PLAIN, LabelsSettings(kind="class")) == "labels"


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=8, max_size=80), st.integers(0, 5))
def test_each_class_gives_its_share_and_equal_texts_fall_on_one_side(labels, seed):
    examples = [Labelled(f"text {number // 2}", label) for number, label in enumerate(labels)]
    asked = FinetuneSettings(seed=seed)
    # By the class of a text's first line, as a text falls on one side whole.
    first = {}
    for example in examples:
        first.setdefault(example.text, example.label)
    sizes = Counter(first.values())
    if max(sizes.values()) == 1:  # of each class one text: none can be spared
        with pytest.raises(CorpusError, match="too few"):
            divide(examples, labels, asked)
        return
    train, holdout = divide(examples, labels, asked)
    assert sorted(train + holdout) == sorted(examples)
    assert not {one.text for one in train} & {one.text for one in holdout}
    assert divide(examples, labels, asked) == (train, holdout)
    held = Counter(first[text] for text in {one.text for one in holdout})
    for label, size in sizes.items():
        wanted = 0 if size == 1 else min(max(round(0.2 * size), 1), size - 1)
        assert held[label] == wanted


def test_numbers_are_held_out_from_each_tenth():
    values = [{"text": f"t{n}", "label": n * n} for n in range(200)]
    known = labelled(rows(values), PLAIN, LabelsSettings(kind="number"))
    assert known.is_number
    held = np.sort([one.label for one in known.holdout])
    for tenth in range(10):
        low, high = (20 * tenth) ** 2, (20 * (tenth + 1)) ** 2
        assert ((held >= low) & (held < high)).sum() == pytest.approx(4, abs=1)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([{"text": "a"}], 'line 1: no field "label", only text'),
        ([{"text": "a", "lable": "b"}], "Did you mean lable"),
        ([{"text": " ", "label": "b"}], 'line 1: the field "text" holds no text'),
        ([{"text": 5, "label": "b"}], "holds no text"),
        ([{"text": "a", "label": None}], 'line 1: the field "label" is empty'),
        ([{"text": "a", "label": "b"}] * 4, "1 different labels"),
        ([{"text": "a", "label": "b"}, {"text": "a", "label": "c"}], "too few to learn"),
    ],
)
def test_bad_examples_are_named_by_their_line(values, words):
    with pytest.raises(CorpusError, match=words):
        labelled(rows(values), PLAIN)


def test_a_label_that_is_no_number_is_named():
    with pytest.raises(CorpusError, match="line 2: the label 'two' is no number"):
        labelled(
            rows([{"text": "a", "label": 1}, {"text": "b", "label": "two"}]),
            FinetuneSettings(task="regression"),
        )


def test_doubtful_examples_are_told():
    values = [{"text": f"t{n}", "label": "x" if n % 2 else "y"} for n in range(20)]
    values += [{"text": "t1", "label": "y"}, {"text": "alone", "label": "z"}]
    notes = " ".join(labelled(rows(values), PLAIN).notes)
    assert "1 texts stand there with different labels" in notes
    assert "cannot be judged: z" in notes


def test_rows_are_read_from_json_lines_and_tables(tmp_path):
    wanted = [{"text": "one, two", "label": "x"}, {"text": "three\nfour", "label": "y"}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, wanted)) + "\n\n")
    (tmp_path / "a.csv").write_text('text,label\n"one, two",x\n"three\nfour",y\n')
    (tmp_path / "a.tsv").write_text('text\tlabel\none, two\tx\n"three\nfour"\ty\n')
    for ending in ("jsonl", "csv", "tsv"):
        found = read_rows([str(tmp_path / f"a.{ending}")], CorpusSettings())
        assert [row.values for row in found] == wanted
        assert "line" in found[0].place
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(CorpusError, match=r"\.jsonl.*\.csv"):
        read_rows([str(tmp_path / "a.txt")], CorpusSettings())
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(CorpusError, match="no examples here"):
        read_rows([str(tmp_path / "empty.jsonl")], CorpusSettings())


def test_every_example_comes_once_an_epoch_in_another_order():
    steps = [in_order(10, 4, step, seed=1).tolist() for step in range(5)]
    flat = [one for step in steps for one in step]
    assert sorted(flat[:10]) == sorted(flat[10:]) == list(range(10))
    assert flat[:10] != flat[10:]
    assert in_order(10, 4, 2, seed=1).tolist() == steps[2]
    assert in_order(10, 4, 2, seed=2).tolist() != steps[2]


def test_a_text_too_long_loses_its_end_and_keeps_the_end_of_text():
    assert between_ends([5, 6, 7, 8], 4, 0, closed=True) == [0, 5, 6, 0]
    assert between_ends([5, 6, 7, 8], 4, 0, closed=False) == [0, 5, 6, 7]
    assert between_ends([5], 4, 0, closed=True) == [0, 5, 0]


def test_class_scores_worked_by_hand():
    true = np.array([0, 0, 0, 1, 1, 2])
    said = [0, 0, 1, 1, 0, 1]
    logits = torch.nn.functional.one_hot(torch.tensor(said), 3).double() * 2
    found = score_classes(logits, true, ("a", "b", "c"), majority=0)
    assert found.confusion == ((2, 1, 0), (1, 1, 0), (0, 1, 0))
    assert found.accuracy == pytest.approx(3 / 6)
    # F1 of a: 2·2/(3+3); of b: 2·1/(3+2); of c: 0.
    assert found.macro_f1 == pytest.approx((2 / 3 + 2 / 5 + 0) / 3)
    assert found.baseline_accuracy == pytest.approx(3 / 6)
    assert found.baseline_macro_f1 == pytest.approx((2 * 3 / 9 + 0 + 0) / 3)
    right, wrong = np.log(np.exp(2) + 2) - 2, np.log(np.exp(2) + 2)
    assert found.loss == pytest.approx((3 * right + 3 * wrong) / 6)


def test_many_classes_are_scored_in_parts_and_told_without_a_square():
    source = np.random.default_rng(0)
    names = tuple(f"c{number:03}" for number in range(300))
    logits = torch.from_numpy(source.normal(size=(900, 300)))
    true = source.integers(0, 300, 900)
    logits[torch.arange(400), torch.from_numpy(true[:400])] += 9
    whole = score_classes(logits, true, names, majority=5)
    cuts = (slice(0, 7), slice(7, 800), slice(800, 900))
    parts = all_classes([score_classes(logits[cut], true[cut], names, 5) for cut in cuts])
    assert parts.counts == whole.counts
    assert parts.loss == pytest.approx(whole.loss)
    assert whole.examples == 900
    assert whole.accuracy == float((logits.argmax(1).numpy() == true).mean())
    told = whole.as_dict()
    assert "confusion" not in told
    assert sum(count for *_, count in told["confused"]) == 900
    right = sum(count for person, model, count in told["confused"] if person == model)
    assert right / 900 == whole.accuracy
    said = describe_taught(Path("run"), "classification", whole, None)
    assert "and 288 more classes" in said
    assert len(said.splitlines()) < 30
    chances = dict.fromkeys(names, 1 / 300)
    assert "and 280 more, less likely" in describe_said(Said("t", names[0], None, chances))


def test_number_scores_worked_by_hand():
    logits = torch.tensor([[1.0], [2.0], [4.0]], dtype=torch.float64)
    found = score_numbers(logits, np.array([1.0, 3.0, 5.0], dtype=np.float32), mean=2.0)
    assert found.loss == pytest.approx((0 + 1 + 1) / 3)
    assert found.baseline == pytest.approx((1 + 1 + 9) / 3)
    assert found.r_squared == pytest.approx(1 - (2 / 3) / (8 / 3))
    same = score_numbers(logits, np.array([3.0, 3.0, 3.0], dtype=np.float32), mean=3.0)
    assert same.r_squared is None
