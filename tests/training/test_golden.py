"""Losses of twenty steps on a CPU in float32, as they were when this was written."""

import json

import pytest

# From the command lines below, --machine.precision float32 --machine.device cpu. Muon computes in
# bfloat16 where the processor knows it, whose rounding differs between processors: 2 % are let be.
TEXT = ["--corpus.stories", "200", "--vocabulary.kind", "byte", "--training.steps", "20"]
TEXT += ["--training.batch-tokens", "1024", "--training.decay-power", "4"]
TEXT += ["--model.hidden-size", "64", "--model.context", "64"]
TEXT += ["--training.evaluate-every", "20"]
# Tokens that are seldom seen have hardly a gradient, and AdamW moves them by its sign alone: at
# usual rates two kinds of processor, or one thread and two, are a percent apart after 20 steps.
TAUGHT = ["--finetune.steps", "20", "--finetune.learning-rate", "0.0002"]
BASE = ["--training.optimizer", "adamw", "--training.learning-rate", "0.003"]
GOLDEN = {
    ("causal", "adamw"): {1: 5.5486, 5: 3.8523, 10: 3.3181, 15: 3.1963, 20: 3.2391},
    ("causal", "muon"): {1: 5.5486, 5: 3.9293, 10: 3.3724, 15: 3.2388, 20: 3.2673},
    ("masked", "adamw"): {1: 5.5515, 5: 4.4214, 10: 3.9271, 15: 3.7970, 20: 3.8232},
    ("masked", "muon"): {1: 5.5515, 5: 4.4439, 10: 3.9273, 15: 3.7946, 20: 3.8195},
    ("labels", "adamw"): {1: 0.6931, 5: 0.6793, 10: 0.6684, 15: 0.6629, 20: 0.6611},
    ("preferences", "adamw"): {1: 0.6931, 5: 0.6565, 10: 0.4820, 15: 0.4710, 20: 0.4601},
    ("answers", "adamw"): {1: 4.6859, 5: 4.6083, 10: 4.5404, 15: 4.4989, 20: 4.4833},
}
LET_BE = {"adamw": 2e-3, "muon": 2e-2}
EXACT = ["--machine.precision", "float32", "--machine.device", "cpu"]


def losses_of(place, run):
    lines = (place.folder / "runs" / run / "metrics.jsonl").read_text().splitlines()
    return {event["step"]: event["loss"] for event in map(json.loads, lines) if "loss" in event}


def write_examples(place):
    names = ("fox", "owl", "hen", "cat", "dog", "bee")
    kinds = {"good": "warm", "kind": "warm", "grim": "cold", "mean": "cold", "cross": "cold"}
    rows = [
        {"text": f"the {name} was {kind} and said nothing", "label": label}
        for name in names
        for kind, label in kinds.items()
    ]
    asked = [
        {"prompt": f"What is {name} like?", "answer": f"It is {kind}."}
        for name in names
        for kind in kinds
    ]
    preferred = [
        {"prompt": row["prompt"], "chosen": row["answer"], "rejected": "I do not know."}
        for row in asked
    ]
    for name, found in (("labels", rows), ("answers", asked), ("preferences", preferred)):
        text = "".join(json.dumps(row) + "\n" for row in found)
        (place.folder / f"{name}.jsonl").write_text(text)


@pytest.mark.parametrize(("objective", "optimizer"), GOLDEN)
def test_twenty_steps_give_the_losses_they_gave(place, trained, objective, optimizer):
    golden = GOLDEN[objective, optimizer]
    command = ["train", "--name", "golden", *TEXT, *EXACT, "--training.optimizer", optimizer]
    if objective in ("causal", "masked"):
        done = place.nextword(*command, "--objective", objective, "--quiet")
    else:
        write_examples(place)
        base = ["train", "--name", "base", *TEXT, *EXACT, *BASE]
        trained.copy_to(place, *base)
        given = ["finetune", "base", f"{objective}.jsonl", "--name", "golden", *TAUGHT]
        done = place.nextword(*given, *EXACT)
    assert done.returncode == 0, done.stderr
    losses = losses_of(place, "golden")
    assert len(losses) == 20
    for step, loss in golden.items():
        assert losses[step] == pytest.approx(loss, rel=LET_BE[optimizer])


def test_learning_by_heart_is_noticed_and_the_best_checkpoint_kept(place):
    import random

    source = random.Random(0)
    text = "".join(source.choice("abcdefgh ") for _ in range(3000))
    (place.folder / "noise.txt").write_text(text)
    options = ["--vocabulary.kind", "char", "--training.steps", "240", "--model.context", "32"]
    options += ["--training.batch-tokens", "512", "--model.hidden-size", "64"]
    options += ["--training.soft-targets", "0"]  # which keep a run from that
    done = place.nextword("train", "noise.txt", "--name", "noise", *options, *EXACT)
    assert done.returncode == 0, done.stderr
    assert "by heart" in done.stderr
    saved = sorted((place.folder / "runs" / "noise" / "checkpoints").iterdir())
    assert len(saved) == 2
    assert saved[-1].name == "step-000240"
    asked = place.nextword("evaluate", "noise", "--json")
    kept = json.loads(asked.stdout)["nats_per_token"]
    assert f"it never saw, {kept:.4f} nats/token" in done.stderr
