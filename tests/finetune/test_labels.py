"""Labels are learned, saved as `transformers` reads them, and judged beside a baseline."""

import json
import random

import pytest
import torch

import nextword
from nextword.base.errors import NextwordError
from nextword.base.files import sha256_of
from nextword.finetune import finetune
from nextword.settings import resolve
from tests.compared import near

TEXT = "the good cat sat on the warm mat. the bad dog ran to the cold sea. " * 120

pytestmark = pytest.mark.usefixtures("one_thread")


def examples(count=60, seed=0):
    """Whether a text says "good", and how often it says "cat"."""
    source = random.Random(seed)
    rows = []
    for _ in range(count):
        words = source.choices(["the", "cat", "dog", "mat", "sea"], k=source.randrange(3, 12))
        good = source.random() < 0.5
        words.insert(source.randrange(len(words)), "good" if good else "bad")
        label = "good one" if good else "bad one"
        rows.append(
            {"text": " ".join(words), "label": label, "cats": 100 + 10 * words.count("cat")}
        )
    return rows


@pytest.fixture(params=["causal", "masked"])
def begun(request, place):
    (place.folder / "t.txt").write_text(TEXT)
    options = {"training.steps": 6, "objective.name": request.param, "model.context": 32}
    options |= {"model.hidden_size": 64}
    # Counting from the last state alone takes two layers; from the average of all, one.
    options |= {"model.depth": 2 if request.param == "causal" else 1, "training.batch_tokens": 512}
    nextword.train(place.folder / "t.txt", name="begun", options=options)
    lines = "\n".join(map(json.dumps, examples()))
    (place.folder / "labels.jsonl").write_text(lines)
    return request.param


def taught(place, **options):
    given = {"finetune.steps": 60, "finetune.learning_rate": 0.004, **options}
    return finetune("begun", [str(place.folder / "labels.jsonl")], resolve(given=given))


def test_classes_are_learned_and_transformers_says_the_same(begun, place):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    done = taught(place)
    scores = done.scores
    assert done.task == "classification"
    assert scores.accuracy > scores.baseline_accuracy + 0.2
    model = nextword.load(str(done.folder))
    assert model.opened.objective.name == "labelled"
    folder = model.opened.folder
    theirs = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = [row["text"] for row in examples(7, seed=5)] + ["cat"]
    said = model.classify(*texts)
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        there = theirs(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    odds = there.logits.double().softmax(-1)
    names = theirs.config.id2label
    assert set(names.values()) == {"good one", "bad one"}
    for row, one in enumerate(said):
        for number, name in names.items():
            near(
                "transformers, probabilities",
                one.probabilities[name],
                odds[row, number],
                most=1e-5,
            )
        assert one.label == names[int(odds[row].argmax())]


def test_numbers_are_learned_in_their_own_units(begun, place):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

    # Of sixty examples a network that has hardly read learns counting on some seeds only.
    (place.folder / "labels.jsonl").write_text("\n".join(map(json.dumps, examples(300))))
    asked = {"finetune.label": "cats", "labels.kind": "number", "finetune.steps": 300}
    done = taught(place, **asked, **{"finetune.seed": 1})
    scores = done.scores
    assert done.task == "regression"
    assert scores.loss < 0.5 * scores.baseline
    model = nextword.load(str(done.folder))
    theirs = AutoModelForSequenceClassification.from_pretrained(model.opened.folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(model.opened.folder)
    texts = ["the cat sat", "the dog", "cat cat cat mat"]
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        there = theirs(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    assert theirs.config.problem_type == "regression"
    for one, number in zip(model.classify(*texts), there.logits[:, 0].tolist(), strict=True):
        near("transformers, numbers as labels", one.number, number, most=1e-5, relative=True)
        assert 60 < one.number < 160
    classify = pipeline("text-classification", model=str(model.opened.folder))
    for one, said in zip(model.classify(*texts), classify(texts), strict=True):
        near("pipelines, numbers as labels", one.number, said["score"], most=1e-5, relative=True)


def test_the_same_seed_gives_the_same_model_and_another_does_not(begun, place):
    few = {"finetune.steps": 5}
    first, second = taught(place, **few), taught(place, **few)
    other = taught(place, **few, **{"finetune.seed": 1})
    assert first.folder != second.folder
    weights = [
        (nextword.load(str(done.folder)).opened.model.last.weight)
        for done in (first, second, other)
    ]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_class_weights_make_a_rare_class_count(place):
    """Where most texts cannot be told apart, only weights keep the rare class from being lost."""
    (place.folder / "t.txt").write_text(TEXT)
    nextword.train(
        place.folder / "t.txt", name="begun", options={"training.steps": 2, "model.hidden_size": 64}
    )
    rows = [{"text": f"the cat {'mat' * (n % 3)} {n}", "label": "common"} for n in range(45)]
    rows += [{"text": f"the cat {'mat' * (n % 3)} {n}", "label": "rare"} for n in range(45, 50)]
    (place.folder / "labels.jsonl").write_text("\n".join(map(json.dumps, rows)))
    rates = {"finetune.steps": 1, "finetune.batch_examples": 40, "finetune.learning_rate": 0.01}
    shares = {}
    for kind in ("none", "balanced"):
        done = taught(place, **rates, **{"finetune.class_weights": kind})
        said = nextword.load(str(done.folder)).classify("the dog sat on the sea")[0]
        shares[kind] = said.probabilities["rare"]
    assert shares["balanced"] > shares["none"] + 0.02


def test_what_gives_labels_gives_no_words(begun, place):
    done = taught(place, **{"finetune.steps": 2})
    model = nextword.load(str(done.folder))
    for ask in (
        lambda: model.generate("a"),
        lambda: model.explain("a"),
        lambda: model.audit("a"),
        lambda: model.evaluate(place.folder / "t.txt"),
        lambda: model.report("r.html"),
        model.replay,
        model.ruler,
        model.tour,
    ):
        with pytest.raises(NextwordError, match="its head gives labels"):
            ask()
    with pytest.raises(NextwordError, match="whose head gives labels"):
        nextword.train(place.folder / "t.txt", start=str(done.folder))
    with pytest.raises(NextwordError, match="it gives no labels"):
        nextword.load("begun").classify("a")


@pytest.mark.parametrize("pad", [None, "<|endoftext|>"])
def test_where_nothing_but_end_of_text_fills_rows_up_labels_stay_the_same(place, pad):
    """Public folders often have no entry for padding, or the end-of-text in its place."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    (place.folder / "t.txt").write_text(TEXT)
    begun = nextword.train(
        place.folder / "t.txt", name="begun", options={"training.steps": 2, "model.hidden_size": 64}
    )
    (place.folder / "labels.jsonl").write_text("\n".join(map(json.dumps, examples())))
    file = begun.opened.folder / "tokenizer_config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps({**config, "pad_token": pad, "mask_token": None}))
    manifest = begun.opened.folder / "training" / "manifest.json"
    vouched = {**json.loads(manifest.read_text()), file.name: sha256_of(file)}
    manifest.write_text(json.dumps(vouched))
    done = taught(place)
    model = nextword.load(str(done.folder))
    assert model.vocabulary.pad_id is None
    texts = [row["text"] for row in examples(9, seed=5)]
    said = model.classify(*texts)
    right = sum(one.label == row["label"] for one, row in zip(said, examples(9, 5), strict=True))
    assert right >= 7  # asked as it was taught
    theirs = AutoModelForSequenceClassification.from_pretrained(model.opened.folder).eval()
    batch = AutoTokenizer.from_pretrained(model.opened.folder)(
        texts, padding=True, return_tensors="pt"
    )
    with torch.no_grad():
        odds = theirs(**{key: batch[key] for key in ("input_ids", "attention_mask")}).logits
    for row, one in enumerate(said):
        assert one.label == theirs.config.id2label[int(odds[row].argmax())]
        top = float(odds[row].double().softmax(-1).max())
        assert one.probabilities[one.label] == pytest.approx(top, abs=1e-4)


def test_answers_cannot_be_taught_to_a_model_with_labels(begun, place):
    done = taught(place, **{"finetune.steps": 2})
    file = place.folder / "qa.jsonl"
    file.write_text(json.dumps({"prompt": "a", "answer": "b"}))
    with pytest.raises(NextwordError, match=r"labels and no longer words|cannot write an answer"):
        finetune(str(done.folder), [str(file)], resolve())


def test_it_can_begin_with_nothing_for_comparison(begun, place):
    file = str(place.folder / "labels.jsonl")
    given = resolve(given={"finetune.steps": 2})
    done = finetune("begun", [file], given, from_nothing=True)
    facts = json.loads((done.folder / "run.json").read_text())
    assert facts["warm_start"] is None
    lines = (done.folder / "metrics.jsonl").read_text().splitlines()
    judged = [event for event in map(json.loads, lines) if event["event"] == "evaluation"]
    assert judged[-1]["accuracy"] == done.scores.accuracy
    assert facts["objective"] == "labelled"
    ours = nextword.load(str(done.folder)).opened.model.model.embed_tokens.weight
    theirs = nextword.load("begun").opened.model.model.embed_tokens.weight
    assert (ours - theirs).abs().max() > 1e-3


def test_ctrl_c_keeps_what_was_learned(place):
    import os
    import signal
    import subprocess
    import sys
    import time

    (place.folder / "t.txt").write_text(TEXT)
    nextword.train(
        place.folder / "t.txt", name="begun", options={"training.steps": 2, "model.hidden_size": 64}
    )
    (place.folder / "labels.jsonl").write_text("\n".join(map(json.dumps, examples())))
    words = ["finetune", "begun", "labels.jsonl", "--finetune.steps", "100000"]
    process = subprocess.Popen(
        [sys.executable, "-m", "nextword", *words],
        cwd=place.folder,
        env={**place.environment(), "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    journal, until = place.folder / "runs" / "labels-1" / "metrics.jsonl", time.monotonic() + 60
    while not (journal.is_file() and journal.stat().st_size) and time.monotonic() < until:
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "nextword train --resume labels-1" in said
    assert nextword.load("labels-1").classify("the good cat")[0].label in ("good one", "bad one")
    step = json.loads(journal.read_text().splitlines()[-1])["step"]
    done = place.nextword("train", "--resume", "labels-1", "--training.steps", str(step + 2))
    assert done.returncode == 0, done.stderr
    assert "nextword classify labels-1" in done.stderr


def test_a_model_is_finetuned_from_python_and_stays_as_it_was(begun, place):
    model = nextword.load("begun")
    before = model.opened.model.model.embed_tokens.weight.clone()
    options = {"finetune.steps": 2}
    taught_one = model.finetune(place.folder / "labels.jsonl", name="mine", options=options)
    assert taught_one.classify("the good cat")[0].label in ("good one", "bad one")
    assert torch.equal(before, model.opened.model.model.embed_tokens.weight)
    with pytest.raises(NextwordError, match="mine"):
        model.finetune(place.folder / "labels.jsonl", name="mine", options=options)


def test_a_launcher_of_many_processes_is_refused(begun, place, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(NextwordError, match="one process"):
        taught(place)


def test_the_verbs_work_and_say_what_was_found(place):
    (place.folder / "t.txt").write_text(TEXT)
    nextword.train(
        place.folder / "t.txt", name="begun", options={"training.steps": 2, "model.hidden_size": 64}
    )
    rows = examples(40)
    lines = ["text,label,cats", *(f"{row['text']},{row['label']},{row['cats']}" for row in rows)]
    (place.folder / "labels.csv").write_text("\n".join(lines))
    done = place.nextword("finetune", "begun", "labels.csv", "--finetune.steps", "4")
    assert done.returncode == 0, done.stderr
    for words in ("classification, with cross-entropy", "accuracy", "macro-F1", "always saying"):
        assert words in done.stderr
    said = place.nextword("classify", "labels-1", "the good cat")
    assert said.returncode == 0, said.stderr
    assert {line.rsplit("  ", 2)[0].strip() for line in said.stdout.splitlines()} >= {"good one"}
    done = place.nextword(
        *("finetune", "begun", "labels.csv", "--label", "cats", "--labels.kind", "number"),
        *("--finetune.steps", "4", "--json"),
    )
    values = json.loads(done.stdout)
    assert values["task"] == "regression"
    assert "mean squared error" in done.stderr
    number = json.loads(place.nextword("classify", "labels-2", "a cat", "--json").stdout)["number"]
    assert isinstance(number, float)
    for wrong, words in (
        (("finetune", "begun"), "no examples"),
        (("finetune", "begun", "nothing.csv"), "nothing.csv"),
        (("finetune", "nobody", "labels.csv"), "nobody"),
        (("finetune", "begun", "labels.csv", "--label", "lable"), 'no field "lable"'),
        (("finetune", "begun", "t.txt"), ".jsonl"),
    ):
        failed = place.nextword(*wrong)
        assert failed.returncode == 2
        assert words in failed.stderr
        assert failed.stderr.count("\n") == 1
    assert sorted(one.name for one in (place.folder / "runs").iterdir()) == [
        *("begun", "labels-1", "labels-2")
    ]
