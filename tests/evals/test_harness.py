"""The harness' figures of a run: of this program's own tasks and of tasks in a folder."""

import itertools
import json
import math

import pytest

import nextword
from nextword.base.errors import NextwordError
from nextword.evals import tasks
from nextword.evals.harness import run_tasks
from nextword.evals.tasks import OWN, prepared_of
from nextword.explanation.benchmarks import Benchmark, keep_benchmarks, read_benchmarks
from nextword.export.card import card_text, read_card
from nextword.prediction.scoring import score
from tests.compared import near

pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed")
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("one_thread")]


@pytest.fixture(autouse=True)
def _offline(place, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(place.folder / "hf"))
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")


@pytest.mark.parametrize("name", OWN)
def test_bits_a_byte_are_those_of_this_program(run, name, monkeypatch):
    opened = nextword.load("small").opened
    monkeypatch.setattr(tasks, "LONGEST", 120)  # of Python's prose; all within one context
    texts = [text[:120] for text in itertools.islice(OWN[name](opened), 5)]
    nats = sum(
        score(opened.model, opened.vocabulary, text).nats_per_token
        * len(opened.vocabulary.encode(text))
        for text in texts
    )
    size = sum(len(text.encode()) for text in texts)
    assert all(len(opened.vocabulary.encode(text)) < opened.model.shape.context for text in texts)
    (found,) = run_tasks(opened, [name], limit=5)
    assert found.documents == 5
    bits, row = nats / math.log(2) / size, "lm-evaluation-harness, bits a byte"
    near(row, bits, found.metrics["bits_per_byte"], most=1e-5, relative=True)
    assert found.step == 12
    assert found.leaked.texts == 0


def test_tasks_of_a_folder_and_what_training_had_read_of_them(place, run):
    opened = nextword.load("small").opened
    prepared = prepared_of(opened)
    known = [
        prepared.vocabulary.decode(prepared.train.document(number).tolist()[:-1])
        for number in range(6)
    ]
    other = [next(OWN["nextword_stories"](opened))]
    rows = [
        {
            "before": text[: len(text) // 2],
            "choices": [text[len(text) // 2 :], " a b c"],
            "right": 0,
        }
        for text in [*known, *other]
    ]
    tasks = place.folder / "tasks"
    tasks.mkdir()
    (tasks / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {
        "task": "endings", "dataset_path": "json", "test_split": "test", "num_fewshot": 0,
        "dataset_kwargs": {"data_files": {"test": str(tasks / "rows.jsonl")}},
        "output_type": "multiple_choice", "doc_to_text": "{{before}}",
        "doc_to_choice": "{{choices}}", "doc_to_target": "{{right}}",
        "metric_list": [{"metric": "acc"}],
    }  # fmt: skip
    (tasks / "endings.yaml").write_text(json.dumps(task))
    done = place.nextword("benchmark", "small", "--tasks", "endings", "--include", "tasks")
    assert done.returncode == 0, done.stderr
    assert done.stderr == "asking endings of small@12\n"
    (kept,) = read_benchmarks(run)
    assert kept.task == "endings"
    assert kept.documents == 7
    assert set(kept.metrics) == {"acc"}
    assert kept.errors["acc"] >= 0
    assert kept.leaked.texts >= 6
    assert 0.7 < kept.leaked.share < 1  # six of seven stand in training
    assert f"{kept.leaked.share:.1%} of its text" in done.stdout
    # They stand in the card, and in the report.
    assert f"| endings | 7 | acc | {kept.metrics['acc']:.4g}" in card_text(
        read_card("small", "a/b")
    )
    assert "endings" not in card_text(read_card("small@6", "a/b"))
    report = place.nextword("report", "small", "-o", "page.html")
    assert report.returncode == 0, report.stderr
    page = (place.folder / "page.html").read_text()
    assert "<td>endings</td><td>7</td><td>acc</td>" in page
    assert "of its text</td>" in page


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--tasks", ","), "--tasks names none"),
        (("--limit", "0"), "--limit 0: at least 1"),
        (("--fewshot", "-1"), "--fewshot -1: at least 0"),
        (("--include", "nowhere"), "nowhere: no such folder"),
    ],
)
def test_wrong_input_is_one_line(place, run, words, told):
    done = place.nextword("benchmark", "small", *words)
    assert done.returncode == 2
    assert told in done.stderr.splitlines()[-1]
    assert not (run / "benchmarks.json").exists()


def test_an_unknown_task_is_one_line(place, run, monkeypatch):
    """All of the harness' own are looked through, which takes 16 seconds: here only some are."""
    from lm_eval.tasks import TaskManager

    looked = []

    class Some(TaskManager):
        def __init__(self, include_path=None, include_defaults=True):
            looked.append(include_defaults)
            super().__init__(include_path=str(place.folder), include_defaults=False)

    monkeypatch.setattr("lm_eval.tasks.TaskManager", Some)
    (place.folder / "mine.yaml").write_text("task: mine_of_rhymes\ndataset_path: json\n")
    for asked, meant, through in (
        (["--tasks", "nextword_hold"], "nextword_holdout", []),
        (["--tasks", "nextword_hold", "--include", "."], "nextword_holdout", [False]),
        (["--tasks", "mine_of_rhyme"], "mine_of_rhymes", [True]),
        (["--tasks", "mine_of_rhyme", "--include", "."], "mine_of_rhymes", [False, True]),
    ):
        looked.clear()
        done = place.nextword("benchmark", "small", *asked)
        assert done.returncode == 2
        assert f"Did you mean {meant}?" in done.stderr.splitlines()[-1], done.stderr
        assert looked == through


def test_data_that_cannot_be_had_are_one_line(place, run):
    (place.folder / "tasks").mkdir()
    task = {
        "task": "gone", "dataset_path": "json", "test_split": "test", "doc_to_text": "",
        "dataset_kwargs": {"data_files": {"test": "gone.jsonl"}},
        "output_type": "loglikelihood_rolling", "doc_to_target": "{{text}}",
        "metric_list": [{"metric": "bits_per_byte"}],
    }  # fmt: skip
    (place.folder / "tasks" / "gone.yaml").write_text(json.dumps(task))
    done = place.nextword("benchmark", "small", "--tasks", "gone", "--include", "tasks")
    assert done.returncode == 2
    assert "the harness failed: " in done.stderr
    assert done.stderr.count("\n") == 2


def test_newer_figures_stay_and_damage_is_named(run):
    one = Benchmark("a", 12, "1", 5, 0, {"acc": 0.5})
    keep_benchmarks(run, [one, Benchmark("b", 12, "1", 5, 0, {"acc": 0.1})])
    keep_benchmarks(run, [Benchmark("a", 12, "1", 5, 0, {"acc": 0.7})])
    assert [(one.task, one.metrics["acc"]) for one in read_benchmarks(run)] == [
        ("a", 0.7), ("b", 0.1),
    ]  # fmt: skip
    for text in ("", "{}", '[{"task": 3}]', "[" * 10_000):
        (run / "benchmarks.json").write_text(text)
        with pytest.raises(NextwordError, match=r"benchmarks\.json"):
            read_benchmarks(run)
