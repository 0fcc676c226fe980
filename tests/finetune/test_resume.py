"""Fine-tuning goes on after a stop, bit for bit, through the same loop as training on text."""

import json
from itertools import chain

import pytest
from safetensors.torch import load_file

import nextword
from nextword.base.errors import RunError
from nextword.finetune import finetune, resume
from nextword.settings import resolve

TEXT = "the good cat sat on the warm mat. the bad dog ran to the cold sea. " * 60
KINDS = {
    "classes": [{"text": f"the {w} {n}", "label": w} for n in range(15) for w in ("cat", "dog")],
    "numbers": [{"text": f"the cat {n}", "label": n * 1.5} for n in range(30)],
    "answers": [{"prompt": f"a cat {n}?", "answer": "yes" * (1 + n % 3)} for n in range(30)],
    "chats": [
        {
            "messages": [
                {"role": "user", "content": f"a cat {n}?"},
                {"role": "assistant", "content": "yes" * (1 + n % 3)},
            ]
        }
        for n in range(30)
    ],
}
CLOCKS = {"seconds", "tokens_per_second"}

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def begun(place):
    (place.folder / "t.txt").write_text(TEXT)
    options = {"training.steps": 3, "model.context": 32, "model.depth": 1, "model.hidden_size": 64}
    nextword.train(place.folder / "t.txt", name="begun", options=options)
    return place


def events(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in CLOCKS} for line in lines]


def weights(run):
    (saved,) = (run / "checkpoints").iterdir()
    parts = ("model.safetensors", "training/optimizer.safetensors")
    return saved.name, dict(chain(*(load_file(saved / part).items() for part in parts)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("from_nothing", [False, True])
def test_it_goes_on_bit_for_bit(begun, kind, from_nothing):
    file = begun.folder / "e.jsonl"
    file.write_text("\n".join(map(json.dumps, KINDS[kind])))
    settings = resolve(given={"finetune.steps": 8, "finetune.batch_examples": 4})
    runs = begun.folder / "runs"
    whole = finetune("begun", [str(file)], settings, name="whole", from_nothing=from_nothing)
    stopped(begun, file, settings, from_nothing=from_nothing)
    assert weights(runs / "parts")[0] == "step-000004"
    done = resume("parts")
    assert done.task == whole.task
    (name, found), (other, expected) = weights(runs / "parts"), weights(runs / "whole")
    assert name == other == "step-000008"
    assert found.keys() == expected.keys()
    for key, value in found.items():
        assert value.equal(expected[key]), key
    assert events(runs / "parts") == events(runs / "whole")
    one, two = (nextword.load(name).opened.objective.name for name in ("parts", "whole"))
    assert one == two


def stopped(place, file, settings, *, from_nothing):
    """Press Ctrl-C after four steps."""
    from nextword import callbacks, fit
    from nextword.run import Interrupted

    log, stop = callbacks.log_steps, callbacks.stop_when_asked

    def log_steps(run):
        whole = log(run)

        def note(state):
            whole.action(state)
            if state.step == 4:
                pressed[0].stop = 2

        return callbacks.Callback(1, note)

    def stop_when_asked(run, asked, save):
        pressed.append(asked)
        return stop(run, asked, save)

    pressed = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit, "log_steps", log_steps)
        patch.setattr(fit, "stop_when_asked", stop_when_asked)
        with pytest.raises(Interrupted, match="nextword train --resume parts"):
            finetune("begun", [str(file)], settings, name="parts", from_nothing=from_nothing)


def test_what_cannot_go_on_is_said(begun):
    file = begun.folder / "e.jsonl"
    file.write_text("\n".join(map(json.dumps, KINDS["classes"])))
    finetune("begun", [str(file)], resolve(given={"finetune.steps": 2}), name="a")
    with pytest.raises(RunError, match="has done 2 of 2 steps"):
        resume("a")
    longer = nextword.train(resume="a", options={"training.steps": 3})
    assert longer.opened.step == 3
    file.write_text("\n".join(map(json.dumps, KINDS["classes"][:-1])))
    with pytest.raises(RunError, match="have changed since it began"):
        resume("a", steps=5)
    facts = begun.folder / "runs" / "a" / "run.json"
    values = json.loads(facts.read_text())
    del values["digests"]
    facts.write_text(json.dumps(values))
    with pytest.raises(RunError, match="begin again with nextword finetune"):
        resume("a", steps=5)
