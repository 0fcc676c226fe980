"""lm-evaluation-harness asks the endpoint, and gets what its own `hf` model says of the folder."""

import json

import pytest

from tests.compared import near
from tests.serve.conftest import running

pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed")

TASKS = {
    "last_word": {
        "output_type": "loglikelihood",
        "doc_to_text": "{{before}}",
        "doc_to_target": " {{last}}",
        "metric_list": [{"metric": "perplexity"}, {"metric": "acc"}],
    },
    "choice": {
        "output_type": "multiple_choice",
        "doc_to_text": "{{before}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{right}}",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    },
    "whole": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{text}}",
        "metric_list": [{"metric": "word_perplexity"}, {"metric": "bits_per_byte"}],
    },
}
SENTENCES = (
    "We are all humans born to make mistakes.",
    "Long ago the owl was wise, and it said so every night.",
    "Every human is born to learn; some learn late.",
    "The fox said: ünïcode 🙂 is text like any other text.",
)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """A folder of tasks as the harness reads them, and their documents."""
    folder = tmp_path_factory.mktemp("tasks")
    rows = []
    for number, sentence in enumerate(SENTENCES * 3):
        words = sentence.split()[: 4 + number]
        before, last = " ".join(words[:-1]), words[-1]
        rows.append(
            {
                "before": before, "last": last, "choices": [last, "mistakes", "a b c"], "right": 0,
                "text": sentence * (1 + 9 * (number % 3)),
            }
        )  # fmt: skip
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, task in TASKS.items():
        files = {"test": str(folder / "rows.jsonl")}
        whole = {
            "task": name, "dataset_path": "json", "dataset_kwargs": {"data_files": files},
            "test_split": "test", "num_fewshot": 0, **task,
        }  # fmt: skip
        (folder / f"{name}.yaml").write_text(json.dumps(whole))  # JSON is YAML
    return folder


@pytest.mark.filterwarnings("ignore")
def test_every_log_probability_is_that_of_its_own_model(
    small_place, small, tasks, monkeypatch, tmp_path
):
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.models.openai_completions import LocalCompletionsAPI
    from lm_eval.tasks import TaskManager

    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    folder = str(small.opened.folder)
    known = TaskManager(include_path=str(tasks), include_defaults=False)
    # Through an endpoint the harness keeps a place for the token that is always written: long texts
    # are cut into windows of one token less.
    context = small.model.shape.context
    theirs = HFLM(
        pretrained=folder, device="cpu", batch_size=2, add_bos_token=True, max_length=context - 1
    )
    found = []
    with running(small_place) as server:
        ours = LocalCompletionsAPI(
            base_url=f"{server.address}/v1/completions", model="small", tokenizer=folder,
            tokenizer_backend="huggingface", batch_size=3, add_bos_token=True,
            max_length=context + 1,
        )  # fmt: skip
        for model in (ours, theirs):
            done = lm_eval.simple_evaluate(
                model=model, tasks=list(TASKS), task_manager=known, log_samples=True,
                bootstrap_iters=0,
            )  # fmt: skip
            found.append(done)
    for name in TASKS:
        samples = [done["samples"][name] for done in found]
        assert len(samples[0]) == len(samples[1]) == 12
        for one, other in zip(*samples, strict=True):
            # Theirs are sums in float32, of which 2,000 nats are told to 1e-4.
            here, there = _numbers(one["resps"]), _numbers(other["resps"])
            assert here == pytest.approx(there, abs=1e-4, rel=1e-7)
            most = 1e-4 + 1e-7 * max(map(abs, there))
            near("lm-evaluation-harness, log-probabilities", here, there, most=most)
        for key, value in found[0]["results"][name].items():
            if isinstance(value, float):
                assert value == pytest.approx(found[1]["results"][name][key], rel=1e-4), key


def _numbers(answers):
    """Return all log-probabilities of a sample's answers, and whether each was the likeliest."""
    if isinstance(answers, list | tuple):
        return [number for one in answers for number in _numbers(one)]
    return [float(answers)]
