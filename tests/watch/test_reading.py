"""What a step read: the rows that training read then, and the layers that its gradient moves."""

import pytest

from nextword.base.errors import EvaluationError
from nextword.prediction.loading import open_model
from nextword.training.journal import Journal
from nextword.watch.reading import batch_at, gradients_by_layer


def test_it_is_the_batch_that_training_read(run, monkeypatch, place):
    import nextword
    from nextword.training import batches

    seen, real = [], batches.read_windows
    monkeypatch.setattr(
        batches, "read_windows", lambda *a: (seen.append((a[2], real(*a))), real(*a))[1]
    )
    options = {"training.steps": 3, "corpus.stories": 400}
    model = nextword.train(name="again", options=options)
    by_step = {}
    for step, window in seen:
        by_step.setdefault(step, window)
    assert set(by_step) >= {0, 1, 2}
    again = run.with_name("again")
    for step in range(3):
        told = batch_at(again, step + 1, None)
        text = model.vocabulary.decode(by_step[step][0].tolist(), special=True)
        assert told["texts"][0].rstrip("…") == text[: len(told["texts"][0].rstrip("…"))]
        assert told["layers"] == []


def test_the_layers_gradients_are_those_of_the_whole(run):
    import torch

    opened = open_model(str(run))
    window = torch.randint(3, len(opened.vocabulary), (2, 40))
    found = gradients_by_layer(opened.model, window)
    assert [one["name"] for one in found][:2] == ["embedding", "layer 1"]
    opened.model.zero_grad()
    hidden = opened.model.hidden(window[:, :-1])
    logits = hidden @ opened.model.output_weight.T
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), window[:, 1:].flatten()).backward()
    whole = sum(float(weight.grad.square().sum()) for weight in opened.model.parameters())
    assert sum(one["norm"] ** 2 for one in found) == pytest.approx(whole, rel=1e-4)


def test_steps_that_are_none_are_refused(run):
    with pytest.raises(EvaluationError, match="counted from 1"):
        batch_at(run, 0, None)


def test_of_a_spike_the_gradient_of_then_is_told(run):
    journal = Journal(run)
    known = {"event": "spike", "step": 7, "gradient_norm": 5.0, "usual": 0.1}
    lengths = {"embedding": 3.0, "layer 1": 4.0}
    journal.write({**known, "parts": lengths})
    told = batch_at(run, 7, open_model(str(run)))
    assert {one["name"]: one["norm"] for one in told["layers"]} == lengths
    assert "checkpoint" not in told
    assert batch_at(run, 6, open_model(str(run)))["checkpoint"] == 12
