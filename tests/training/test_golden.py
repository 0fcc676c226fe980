"""Losses of twenty steps on a CPU in float32, as they were when this was written."""

import json

import pytest

# From `nextword train --corpus.stories 200 --vocabulary.kind byte --training.steps 20
# --training.optimizer adamw --machine.precision float32 --machine.device cpu`. AdamW, because Muon
# computes in bfloat16, whose rounding differs between processors.
GOLDEN = {1: 5.5335, 5: 3.2197, 10: 3.0661, 15: 3.0681, 20: 3.0561}


def test_twenty_steps_give_the_losses_they_gave(place):
    options = ["--corpus.stories", "200", "--vocabulary.kind", "byte", "--training.steps", "20"]
    options += ["--machine.precision", "float32", "--machine.device", "cpu"]
    options += ["--training.optimizer", "adamw", "--training.batch-tokens", "2048"]
    options += ["--training.decay-power", "4"]
    done = place.nextword("train", "--name", "golden", *options, "--quiet")
    assert done.returncode == 0, done.stderr
    lines = (place.folder / "runs" / "golden" / "metrics.jsonl").read_text().splitlines()
    losses = {event["step"]: event["loss"] for event in map(json.loads, lines) if "loss" in event}
    assert len(losses) == 20
    for step, loss in GOLDEN.items():
        assert losses[step] == pytest.approx(loss, rel=2e-3)


def test_learning_by_heart_is_noticed_and_the_best_checkpoint_kept(place):
    import random

    source = random.Random(0)
    text = "".join(source.choice("abcdefgh ") for _ in range(3000))
    (place.folder / "noise.txt").write_text(text)
    options = ["--vocabulary.kind", "char", "--training.steps", "120", "--model.context", "32"]
    options += ["--training.batch-tokens", "512"]
    done = place.nextword("train", "noise.txt", "--name", "noise", *options)
    assert done.returncode == 0, done.stderr
    assert "by heart" in done.stderr
    saved = sorted((place.folder / "runs" / "noise" / "checkpoints").iterdir())
    assert len(saved) == 2
    assert saved[-1].name == "step-000120"
    asked = place.nextword("evaluate", "noise", "--json")
    kept = json.loads(asked.stdout)["nats_per_token"]
    assert f"it never saw, {kept:.4f} nats/token" in done.stderr
