"""Labels are classes, quantities or several of a text, as people write them; and why is said."""

import json
import math
import tomllib

import pytest
from hypothesis import given as example_of
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from nextword.base.errors import CorpusError, SettingsError
from nextword.corpus.examples import Row, read_rows
from nextword.corpus.options import CorpusSettings
from nextword.finetune.examples import labelled, look
from nextword.finetune.kinds import Given, kind_of
from nextword.finetune.tally import Tally
from nextword.objectives.options import ExamplesSettings, FinetuneSettings, LabelsSettings
from nextword.settings import as_toml, resolve

PLAIN, AUTO = FinetuneSettings(), LabelsSettings()


def rows(values):
    return [Row(f"a.jsonl, line {number}", one) for number, one in enumerate(values, start=1)]


def texts(labels):
    return rows([{"text": f"t{n}", "label": label} for n, label in enumerate(labels)])


def kind(values, finetune=PLAIN, labels=AUTO):
    given = [Given(f"line {number}", value) for number, value in enumerate(values, start=1)]
    return kind_of(given, finetune, labels)


@pytest.mark.parametrize(
    ("values", "name", "reason"),
    [
        ([0, 1, 2], "class", "whole numbers without a decimal point, 3 different"),
        (["0", "1", "2"], "class", "whole numbers without a decimal point, 3 different"),
        (["-1", "1"], "class", "whole numbers"),
        ([10**400, 1], "class", "whole numbers"),
        ([True, False], "class", "'true' (line 1) is no number"),
        (["good", "bad"], "class", "'good' (line 1) is no number"),
        ([1, 0.5], "number", "all are numbers, and '0.5' (line 2) has a decimal point"),
        ([1.0, 2.0], "number", "'1.0' (line 1) has a decimal point"),
        (["1", "3.5"], "number", "'3.5' (line 2) has a decimal point"),
        (["1e-3", "2"], "number", "'1e-3' (line 1)"),
        ([" 2.5 ", "-.5", "+1."], "number", "all are numbers"),
        ([1.5, "unknown"], "class", "'unknown' (line 2) is no number, though '1.5' (line 1) is"),
        ([1.5, "inf"], "class", "'inf' (line 2) is no number"),
        (["1_0", "2.0"], "class", "'1_0' (line 1) is no number"),
        ([["a"], ["a", "b"], []], "multi", "(line 1) is a list"),
        (["a", ["b"]], "multi", "(line 2) is a list"),
        (['["a", "b"]', "[]"], "multi", "is a list"),
        (["['a', 'b']", "['b']"], "multi", "is a list"),
        (["[draft]", "done"], "class", "is no number"),
        (list(range(1990, 2020)), "class", "30 different, many for classes: are they quantities?"),
    ],
)
def test_the_kind_is_found_by_looking_and_said_with_its_reason(values, name, reason):
    found = kind(values)
    assert found.name == name
    assert reason in found.reason


def test_the_kind_can_be_given_and_must_not_contradict_the_task():
    assert kind([1, 2], labels=LabelsSettings(kind="number")).name == "number"
    assert kind([1, 2], FinetuneSettings(task="regression")).name == "number"
    assert kind(["1.5"], FinetuneSettings(task="classification")).name == "class"
    both = FinetuneSettings(task="classification")
    assert kind(["a,b"], both, LabelsSettings(kind="multi")).name == "multi"
    for task, asked in (
        *(("classification", "number"), ("regression", "class"), ("regression", "multi")),
        *(("answers", "class"), ("answers", "multi")),
    ):
        with pytest.raises(SettingsError, match="contradict"):
            look(texts("ab"), FinetuneSettings(task=task), LabelsSettings(kind=asked))


def test_missing_labels_are_counted_and_left_out():
    """A few gaps make no class of their own, and no classes of numbers."""
    gaps = [None, math.nan, "nan", "NaN", "None", "", " ", "null", "NA", "<NA>"]
    for labels, kind_there, names in (
        ([n / 7 for n in range(50)], "number", ("label",)),
        ([str(n / 7) for n in range(50)], "number", ("label",)),
        (["0", "1"] * 25, "class", ("0", "1")),
        (["good", "bad"] * 25, "class", ("bad", "good")),
        ([["a"], []] * 25, "multi", ("a",)),
    ):
        tally = Tally(60)
        known = labelled(texts([*labels, *gaps]), PLAIN, AUTO, tally)
        assert known.kind.name == kind_there
        assert known.names == names
        assert len(known.train) + len(known.holdout) == 50
        counted = tally.as_dict(len(known.train), len(known.holdout))
        assert counted["left_out"] == {"no_label": 10}
        (note,) = tally.notes()
        assert note == "10 of 60 rows left out, without a label; the first: a.jsonl, line 51"


def test_what_is_a_gap_can_be_said():
    """In lower letters it is a label; NA is a country."""
    stances = texts(["for", "against", "none", "NONE"] * 10)
    assert labelled(stances, PLAIN).names == ("NONE", "against", "for", "none")
    countries = texts(["NA", "DE"] * 10)
    with pytest.raises(CorpusError, match="1 different labels"):
        labelled(countries, PLAIN)
    assert labelled(countries, PLAIN, LabelsSettings(missing=("-",))).names == ("DE", "NA")


def test_where_no_row_has_a_label_that_is_said():
    with pytest.raises(CorpusError, match=r"line 1: the field \"label\" is empty, and so in all"):
        labelled(texts([None, "", "nan"]), PLAIN)
    some = rows([{"text": "a"}, *({"text": f"t{n}", "label": "ab"[n % 2]} for n in range(20))])
    tally = Tally(21)
    labelled(some, PLAIN, AUTO, tally)
    assert [left.place for left in tally.left] == ["a.jsonl, line 1"]


def test_tables_say_the_same_as_lines(tmp_path):
    labels = [0, 1, 2, None] * 10
    (tmp_path / "a.jsonl").write_text(
        "\n".join(json.dumps({"text": f"t{n}", "label": one}) for n, one in enumerate(labels))
    )
    (tmp_path / "a.csv").write_text(
        "text,label\n"
        + "\n".join(f"t{n},{'' if one is None else one}" for n, one in enumerate(labels))
    )
    found = [
        labelled(read_rows([str(tmp_path / name)], CorpusSettings()), PLAIN)
        for name in ("a.jsonl", "a.csv")
    ]
    assert found[0].names == ("0", "1", "2")
    assert found[0] == found[1]


def test_whole_numbers_keep_their_order_as_classes():
    known = labelled(texts(list(range(12)) * 5), PLAIN)
    assert known.names == tuple(map(str, range(12)))
    assert all(known.names[one.label] == str(int(one.text[1:]) % 12) for one in known.train)
    signs = labelled(texts([1, -1, 0, -2, 10] * 5), PLAIN)
    assert signs.names == ("-2", "-1", "0", "1", "10")
    floats = labelled(texts([0.0, 1.0, 1] * 10), PLAIN, LabelsSettings(kind="class"))
    assert floats.names == ("0", "1")


def test_a_row_that_does_not_fit_the_kind_is_left_out_and_named():
    values = [n / 7 for n in range(200)]
    number = LabelsSettings(kind="number")
    tally = Tally(202)
    known = labelled(texts([*values, "many", 10**400]), PLAIN, number, tally)
    assert len(known.train) + len(known.holdout) == 200
    assert [str(left.words)[:30] for left in tally.left] == [
        *("the label 'many' is no number;", f"the label '1{'0' * 18}")
    ]
    with pytest.raises(CorpusError, match=r"line 3: the label \['a'\] is no name"):
        labelled(texts(["a", "b", ["a"]]), PLAIN, LabelsSettings(kind="class"))
    empty = rows(
        [{"text": "", "label": "a"}, *({"text": f"{n}", "label": "ab"[n % 2]} for n in range(99))]
    )
    tally = Tally(100)
    labelled(empty, PLAIN, AUTO, tally)
    assert tally.as_dict(0, 0)["left_out"] == {"no_text": 1}
    with pytest.raises(CorpusError, match="1 of 100 rows"):
        labelled(empty, PLAIN, AUTO, Tally(100, ExamplesSettings(bad_share=0)))


def test_lists_hold_several_labels():
    labels = [["red"], ["red", "blue"], [], ["blue", "red", "blue"], [None, "green"]] * 12
    known = labelled(texts(labels), PLAIN)
    assert known.several
    assert known.names == ("blue", "green", "red")
    for one in [*known.train, *known.holdout]:
        wanted = set(labels[int(one.text[1:])]) - {None}
        assert {known.names[n] for n in one.label} == wanted
        assert len(set(one.label)) == len(one.label)
    notes = " ".join(known.notes)
    assert "12 texts have no label" in notes
    assert "3 labels, each held out alike; the commonest is 'red' (36 texts, 60%)" in notes
    for form in (json.dumps, str):  # as JSON and as Python write them into a table
        written = [form([one for one in row if one]) for row in labels]
        assert labelled(texts(written), PLAIN).train == known.train
    parted = [", ".join(one for one in row if one) or "[]" for row in labels]
    asked = LabelsSettings(kind="multi")
    assert labelled(texts(parted), PLAIN, asked).train == known.train
    odd = labelled(texts(["['a\\d']", "['b']"] * 9), PLAIN)  # Python would warn of the backslash
    assert odd.names == ("a\\d", "b")
    assert labelled(texts([one.replace(",", ";") for one in parted]), PLAIN, asked).train == (
        known.train
    )


def test_rare_labels_of_several_are_on_both_sides():
    labels = [["common", "rare"]] * 5 + [["common"]] * 95
    known = labelled(texts(labels), PLAIN)
    rare = known.names.index("rare")
    assert sum(rare in one.label for one in known.holdout) == 1
    assert sum(rare in one.label for one in known.train) == 4


def test_lists_of_yes_and_no_are_read_by_their_places():
    labels = [[1, 0, 0], [0, 1, 1], [0, 0, 0]] * 10
    for form in (labels, [[float(n) for n in row] for row in labels]):
        known = labelled(texts(form), PLAIN)
        assert known.names == ("0", "1", "2")
        assert {one.label for one in known.train} == {(0,), (1, 2), ()}
        assert any("each place is taken as a label" in note for note in known.notes)
    numbers = labelled(texts([[0], [1], [0, 1]] * 10), PLAIN)  # names of labels, not yes and no
    assert {one.label for one in numbers.train} == {(0,), (1,), (0, 1)}


def test_doubtful_classes_are_said():
    values = [{"text": f"t{n}", "label": "usual"} for n in range(95)]
    values += [{"text": f"u{n}", "label": "other"} for n in range(4)]
    values += [{"text": "alone", "label": "once"}]
    notes = " ".join(labelled(rows(values), PLAIN).notes)
    assert "3 classes, each held out alike; the commonest is 'usual' (95 texts, 95%)" in notes
    assert "always saying 'usual' would be right in 95%: look at macro-F1" in notes
    assert "1 classes with a single example, which is learned from and cannot be judged: once" in (
        notes
    )
    even = " ".join(labelled(texts("ab" * 20), PLAIN).notes)
    assert "macro-F1" not in even
    assert "single" not in even


def test_a_class_in_the_hold_out_only_is_said():
    values = [{"text": f"t{n}", "label": "ab"[n % 2]} for n in range(40)]
    values += [{"text": f"t{n}", "label": "late"} for n in range(40)]
    for seed in range(30):  # until the one text with that label is held out
        known = labelled(rows(values[:41]), FinetuneSettings(seed=seed))
        late = known.names.index("late")
        said = any("in the hold-out only" in note and "late" in note for note in known.notes)
        held = any(one.label == late for one in known.holdout)
        assert said == held
        if held:
            return
    raise AssertionError("never held out")


def test_ten_thousand_classes_are_divided_class_by_class():
    labels = [f"class {n % 10_000}" for n in range(30_000)]
    known = labelled(texts(labels), PLAIN)
    assert len(known.names) == 10_000
    assert len({one.label for one in known.train}) == 10_000
    assert len({one.label for one in known.holdout}) == 10_000
    assert "10,000 classes" in " ".join(known.notes)
    single = " ".join(labelled(texts([*labels[:20_000], "x"]), PLAIN).notes)
    assert "1 classes with a single example" in single
    prices = [str(n) for n in range(500)]
    with pytest.raises(CorpusError, match=r"500 classes of one .*kind number takes whole numbers"):
        labelled(texts(prices), PLAIN)
    assert len(labelled(texts(prices), FinetuneSettings(holdout=0.0)).train) == 500


LABELS = st.one_of(
    st.none(),
    st.sampled_from(["", "nan", "a", "b", "1", "2.5"]),
    st.integers(0, 2),
    st.floats(),
    st.lists(st.sampled_from("ab"), max_size=2),
    st.dictionaries(st.just("k"), st.integers(), max_size=1),
)


@hypothesis_settings(max_examples=200, deadline=None)
@example_of(
    st.lists(st.tuples(st.sampled_from(["", "t", None, 7, "u", "v"]), LABELS), max_size=40),
    st.sampled_from(["auto", "class", "number", "multi"]),
)
def test_counts_add_up_whatever_stands_there(pairs, asked):
    values = [
        {"text": f"{text}{n}" if isinstance(text, str) and text else text, "label": label}
        for n, (text, label) in enumerate(pairs)
    ]
    values += [{"text": f"x{n}", "label": "12"[n % 2]} for n in range(10)]
    tally = Tally(len(values), ExamplesSettings(bad_share=1))
    try:
        known = labelled(rows(values), PLAIN, LabelsSettings(kind=asked), tally)
    except CorpusError:
        return
    counted = tally.as_dict(len(known.train), len(known.holdout))
    left = sum(counted["left_out"].values())
    assert counted["learned_from"] + counted["held_out"] + left == counted["read"] == len(values)


def test_settings_come_back_and_recipes_from_before_still_read():
    asked = resolve(given={"labels.kind": "multi", "labels.missing": ["-", 'say "no"']})
    again = resolve(tomllib.loads(as_toml(asked)))
    assert again == asked
    before = {"finetune": {"task": "regression", "label": "stars"}}
    assert resolve(before).labels == LabelsSettings()
    assert kind(["1", "2"], resolve(before).finetune).name == "number"
