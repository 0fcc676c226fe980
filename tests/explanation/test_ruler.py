"""Every mark of the ruler is recomputed by other means."""

import json
import lzma
import math

import numpy as np
import pytest

import nextword
from nextword.explanation.ruler import Mark, Ruler, beginning
from nextword.rendering.ruler import describe_ruler, ranked, ruler_html, sentence


@pytest.fixture
def ruler(shared_environment, small_run):
    return nextword.load(small_run).ruler(primed=False)


def test_uniform_and_unigram_have_closed_forms(shared_environment, small_run, ruler):
    prepared = nextword.load(small_run)._prepared()
    entries, size = len(prepared.vocabulary), int(prepared.holdout.document_bytes.sum())
    assert ruler.value(ruler.one("guess")) == pytest.approx(
        len(prepared.holdout) * math.log2(entries) / size, rel=1e-12
    )
    counts = np.bincount(prepared.train.read(0, len(prepared.train)), minlength=entries)
    n = [int((counts == k).sum()) for k in range(5)]
    y = n[1] / (n[1] + 2 * n[2]) if n[1] and n[2] else 0.75
    taken = [0.0, y, y, y]
    if min(n[1:]):
        three = [1 - 2 * y * n[2] / n[1], 2 - 3 * y * n[3] / n[2], 3 - 4 * y * n[4] / n[3]]
        taken = [0.0, *three] if min(three) > 0 else taken
    off = np.array(taken)[np.minimum(counts, 3)]
    p = (counts - off) / counts.sum() + off.sum() / counts.sum() / entries
    assert p.sum() == pytest.approx(1.0)
    bits = -np.log2(p[prepared.holdout.read(0, len(prepared.holdout))]).sum()
    assert ruler.value(ruler.one("count", "unigram")) == pytest.approx(bits / size, rel=1e-9)


def test_the_model_is_where_evaluate_puts_it(shared_environment, small_run, ruler):
    model = nextword.load(small_run)
    scores = model.evaluate()
    assert ruler.value(ruler.one("model")) == pytest.approx(scores.as_dict()["bits_per_byte"])
    floor = model.floor(scores)
    assert ruler.value(ruler.one("floor")) == pytest.approx(
        floor.nats_per_token * scores.tokens / math.log(2) / scores.num_bytes
    )


def test_compressors_get_the_same_bytes(shared_environment, small_run, ruler):
    prepared = nextword.load(small_run)._prepared()
    text = "".join(
        prepared.vocabulary.decode(prepared.holdout.document(number).tolist())
        for number in range(prepared.holdout.num_documents)
    ).encode()
    assert ruler.num_bytes == len(text)
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME}]
    packed = len(lzma.compress(text, filters=filters))
    assert ruler.one("pack", "xz").bits == pytest.approx(8 * packed, rel=0.01)
    assert {mark.name for mark in ruler.marks if mark.kind == "pack"} == {
        "gzip", "zstd", "xz", "PPMd",
    }  # fmt: skip


def test_primed_compressors_need_less(shared_environment, small_run):
    ruler = nextword.load(small_run).ruler()
    assert ruler.primed_with > 0
    for name in ("zstd", "xz", "PPMd"):
        assert ruler.one("primed", f"{name} primed").bits < ruler.one("pack", name).bits


def test_a_vocabulary_that_loses_text_leaves_bytes_out(place):
    (place.folder / "t.txt").write_text("".join(chr(97 + n % 7) + " " for n in range(6000)) + "é z")
    model = nextword.train(
        place.folder / "t.txt",
        options={"training.steps": 2, "vocabulary.kind": "char"},
    )
    ruler = model.ruler()
    assert ruler.unit == "bits a token"
    assert ruler.withheld
    assert {mark.kind for mark in ruler.marks} == {"guess", "count", "model"}
    assert "withheld" in describe_ruler(ruler)


def test_a_text_too_long_for_compressors_is_measured_without(
    shared_environment, small_run, monkeypatch
):
    monkeypatch.setattr("nextword.explanation.ruler.PACKED_BYTES", 100)
    ruler = nextword.load(small_run).ruler()
    assert ruler.one("pack") is None
    assert "Compressors are left out" in describe_ruler(ruler)
    assert sentence(ruler).startswith("Is that good?")


def made(model, best=2.0, floor=None):
    marks = [Mark("uniform", "guess", 800.0, ""), Mark("5-gram", "count", 100 * best, "")]
    marks += [Mark("xz", "pack", 250.0, ""), Mark("m", "model", 100 * model, "")]
    marks += [] if floor is None else [Mark("floor", "floor", 100 * floor, "")]
    return Ruler("m", 50, 100, "", 1000, 0, tuple(marks))


def test_one_sentence_answers():
    assert "25% less than the best of counting and packing (5-gram, 2.000)" in sentence(made(1.5))
    assert "50.0% above the least possible (1.000)" in sentence(made(1.5, floor=1.0))
    worse = sentence(made(3.0))
    assert "still 50% more than 5-gram" in worse
    assert all(sentence(made(x)).startswith("Is that good?") for x in (1.5, 3.0))


def test_marks_are_drawn_from_the_worst_to_the_best():
    ruler = made(1.5, floor=1.0)
    assert [mark.name for mark in ranked(ruler)] == ["uniform", "xz", "5-gram", "m", "floor"]
    drawn = describe_ruler(ruler)
    assert drawn.index("uniform") < drawn.index("xz") < drawn.index("floor")
    assert sentence(ruler) in drawn
    assert ruler_html(ruler).count("<tr") == 1 + len(ruler.marks)


def test_the_beginning_of_a_text_is_read_no_farther():
    class Stream:
        document_ends = np.array([4, 10, 5000])

        def read(self, start, stop):
            assert stop <= 12
            return np.arange(start, stop)

    assert [part.tolist() for part in beginning(Stream(), 12)] == [
        [0, 1, 2, 3], [4, 5, 6, 7, 8, 9], [10, 11],
    ]  # fmt: skip


def test_train_ends_with_the_sentence_that_the_verb_says(shared, small_run, small_run_said):
    last = small_run_said.stderr.strip().splitlines()[-1]
    assert last.startswith("Is that good?")
    done = shared.nextword("ruler", small_run, "--no-primed")
    assert done.stdout.strip().splitlines()[-1] == last
    values = json.loads(shared.nextword("ruler", small_run, "--no-primed", "--json").stdout)
    assert values["unit"] == "bits a byte"


def test_what_does_not_depend_on_the_model_is_measured_once(
    shared_environment, small_run, ruler, monkeypatch
):
    def never(*given, **options):
        raise AssertionError("measured again")

    monkeypatch.setattr("nextword.explanation.ruler.squeeze", never)
    monkeypatch.setattr("nextword.explanation.ruler.KneserNey", never)
    model = nextword.load(small_run)
    assert model.ruler(primed=False) == ruler
    monkeypatch.setattr("nextword.explanation.ruler.COUNTED_TOKENS", 100)
    with pytest.raises(AssertionError, match="measured again"):
        model.ruler(primed=False)
