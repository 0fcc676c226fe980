"""Losses of twenty steps on a CPU in float32, as they were when this was written."""

import json

import pytest

# From the command lines below, --machine.precision float32 --machine.device cpu. Muon computes in
# bfloat16 where the processor knows it, whose rounding differs between processors: 2 % are let be.
TEXT = ["--corpus.stories", "200", "--vocabulary.kind", "byte", "--training.steps", "20"]
TEXT += ["--training.batch-tokens", "1024", "--training.decay-power", "4"]
TEXT += ["--model.hidden-size", "64", "--model.context", "64"]
TEXT += ["--training.evaluate-every", "20"]
TAUGHT = ["--finetune.steps", "20"]
GOLDEN = {
    ("causal", "adamw"): {1: 5.5492, 5: 3.7975, 10: 3.3221, 15: 3.1888, 20: 3.2287},
    ("causal", "muon"): {1: 5.5492, 5: 3.8341, 10: 3.3382, 15: 3.2047, 20: 3.2323},
    ("masked", "adamw"): {1: 5.5509, 5: 4.4682, 10: 3.9720, 15: 3.8410, 20: 3.8669},
    ("masked", "muon"): {1: 5.5509, 5: 4.5227, 10: 4.0132, 15: 3.8836, 20: 3.9066},
    ("labels", "adamw"): {1: 0.6931, 5: 0.6450, 10: 0.6413, 15: 0.6477, 20: 0.6511},
    ("preferences", "adamw"): {1: 0.6931, 5: 0.5376, 10: 0.4255, 15: 0.3687, 20: 0.3485},
    ("answers", "adamw"): {1: 3.5275, 5: 3.2519, 10: 3.0632, 15: 2.9638, 20: 2.9294},
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
        base = ["train", "--name", "base", *TEXT, *EXACT, "--training.optimizer", "adamw"]
        trained.copy_to(place, *base)
        given = ["finetune", "base", f"{objective}.jsonl", "--name", "golden", *TAUGHT]
        done = place.nextword(*given, *EXACT[2:])
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
    done = place.nextword("train", "noise.txt", "--name", "noise", *options, *EXACT)
    assert done.returncode == 0, done.stderr
    assert "by heart" in done.stderr
    saved = sorted((place.folder / "runs" / "noise" / "checkpoints").iterdir())
    assert len(saved) == 2
    assert saved[-1].name == "step-000240"
    asked = place.nextword("evaluate", "noise", "--json")
    kept = json.loads(asked.stdout)["nats_per_token"]
    assert f"it never saw, {kept:.4f} nats/token" in done.stderr
