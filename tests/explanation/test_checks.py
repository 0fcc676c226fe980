"""`nextword check`: each check holds for a good run, and fails for a bug in what it checks."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from nextword.base.errors import EvaluationError
from nextword.explanation import checks
from nextword.model.transformer import Transformer
from nextword.prediction.loading import (
    find_checkpoint,
    open_model,
    prepared_folder,
    run_facts,
)
from nextword.training.checkpoint import list_checkpoints
from nextword.vocabulary.prepared import open_prepared

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def subject(small_run, shared_environment):
    opened = open_model(small_run)
    prepared = open_prepared(prepared_folder(opened.run, run_facts(opened.run)))
    return checks.Subject(opened, prepared, checks.small_network(opened.model.shape))


def test_all_hold_for_a_run(small_run, shared):
    done = shared.nextword("check", small_run, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert told["passed"]
    assert len(told["checks"]) == len(checks.CHECKS) == 9
    assert all(one["passed"] for one in told["checks"])


def test_what_cannot_be_checked_does_not_count_as_checked(small_run, shared, monkeypatch):
    unchecked = checks.Check("loss in the log", True, "there is none", checked=False)
    held = checks.Check("another", True, "1 and 1")
    monkeypatch.setattr(checks, "CHECKS", (lambda _: unchecked, lambda _: held))
    done = shared.nextword("check", small_run)
    assert done.returncode == 0
    assert "—     loss in the log" in done.stdout
    assert "1 of 2 hold; not to be checked: loss in the log" in done.stdout
    told = json.loads(shared.nextword("check", small_run, "--json").stdout)
    assert [one["checked"] for one in told["checks"]] == [False, True]


def test_where_the_best_is_not_the_last_the_last_loss_is_checked(place, run):
    """Both by the log's own words: a lie about the last is found by who opens the best."""
    from nextword.base.files import digest_of_file

    last = find_checkpoint(run, "last").step
    earlier = next(one for one in list_checkpoints(run) if one.step != last)
    state, manifest = (
        earlier.folder / "training" / f"{name}.json" for name in ("state", "manifest")
    )
    state.write_text(json.dumps({**json.loads(state.read_text()), "holdout_loss": 1e-3}))
    digests = {**json.loads(manifest.read_text()), "training/state.json": digest_of_file(state)}
    manifest.write_text(json.dumps(digests))
    assert find_checkpoint(run, "best").step != last
    opened = open_model("small")
    assert opened.step != last
    prepared = open_prepared(prepared_folder(opened.run, run_facts(opened.run)))
    subject = checks.Subject(opened, prepared, checks.small_network(opened.model.shape))
    found = checks.check_journal(subject)
    assert found.passed
    assert found.checked
    assert f"told at step {last}" in found.says
    log = run / "metrics.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    for event in lines:
        if event["event"] == "evaluation" and event["step"] == last:
            event["nats_per_token"] *= 1.01
    log.write_text("".join(json.dumps(event) + "\n" for event in lines))
    assert not checks.check_journal(subject).passed


def test_a_verb_with_a_failed_check_leaves_with_1(small_run, shared, monkeypatch):
    failed = checks.Check("loss, whatever the batch", False, "1 and 2")
    monkeypatch.setattr(checks, "CHECKS", (lambda _: failed,))
    done = shared.nextword("check", small_run)
    assert done.returncode == 1
    assert "FAIL  loss, whatever the batch" in done.stdout
    assert "1 of 1 do not hold" in done.stdout


def test_texts_of_a_batch_that_change_each_other_are_found(subject, monkeypatch):
    assert checks.check_batch_size(subject).passed
    real = Transformer.hidden

    def mixed(self, ids, **given):
        states = real(self, ids, **given)
        return states + 0.01 * states.mean(dim=0, keepdim=True)

    monkeypatch.setattr(Transformer, "hidden", mixed)
    assert not checks.check_batch_size(subject).passed


def test_a_mean_of_means_is_found(subject, monkeypatch):
    assert checks.check_accumulation(subject).passed
    real = checks.accumulate

    def wrong(loss, parts, total, device, ranks=1):
        return real(loss, parts, total / len(parts), device, ranks)

    monkeypatch.setattr(checks, "accumulate", wrong)
    assert not checks.check_accumulation(subject).passed


def test_texts_that_see_each_other_are_found(subject, monkeypatch):
    assert checks.check_packing(subject).passed
    real = Transformer.hidden
    monkeypatch.setattr(Transformer, "hidden", lambda self, ids, **_: real(self, ids))
    assert not checks.check_packing(subject).passed


def test_what_fills_rows_up_and_is_counted_is_found(subject, monkeypatch):
    """Texts in one row lose the right loss; only the shorter one beside another does not."""
    assert checks.check_packing(subject).passed
    real = checks.LanguageModelLoss.forward

    def counted(self, inputs, targets, *given, **named):
        return real(self, inputs, targets.where(targets != checks.IGNORED, 0), *given, **named)

    monkeypatch.setattr(checks.LanguageModelLoss, "forward", counted)
    assert not checks.check_packing(subject).passed


def test_processes_that_forget_to_share_are_found(subject, monkeypatch):
    # That they agree where nothing is planted is seen above, with all other checks.
    monkeypatch.setattr(checks, "share", share_nothing)
    assert not checks.check_processes(subject).passed
    monkeypatch.setattr(checks, "share", die)
    found = checks.check_processes(subject)
    assert not found.passed
    assert "did not come to an end" in found.says


def share_nothing(rank, folder, shape):
    """Compute the first half's gradient and take it for the whole."""
    import numpy as np

    torch.set_num_threads(1)
    if rank == 0:
        gradient = checks.gradient_of(checks.small_network(shape), checks._rows()[::2], 2)
        np.save(f"{folder}/gradient.npy", gradient.numpy())


def die(rank, folder, shape):
    """Come to no end."""
    raise SystemExit(3)


def test_bytes_that_are_miscounted_are_found(subject, monkeypatch):
    assert checks.check_bits(subject).passed
    from nextword.loss import bits

    monkeypatch.setattr(
        "nextword.prediction.evaluate.bits_per_byte",
        lambda nats, size: bits.bits_per_byte(nats, size + 50),
    )
    assert not checks.check_bits(subject).passed


def test_a_probability_that_is_scored_at_the_wrong_place_is_found(subject, monkeypatch):
    from nextword.prediction import evaluate

    real = evaluate.score_tokens

    def shifted(hidden, weight, targets):
        return real(hidden, weight, targets.roll(1))

    monkeypatch.setattr(evaluate, "score_tokens", shifted)
    assert not checks.check_bits(subject).passed


def test_first_weights_that_are_sure_of_something_are_found(subject, monkeypatch):
    assert checks.check_first_loss(subject).passed
    real = checks.initialize

    def loud(model, seed):
        real(model, seed)
        with torch.no_grad():
            model.output_weight.mul_(100)

    monkeypatch.setattr(checks, "initialize", loud)
    assert not checks.check_first_loss(subject).passed


@pytest.mark.parametrize(("loss", "passed"), [(3.0, True), (6.8, False), (None, False)])
def test_a_first_step_that_lost_more_than_guessing_is_found(run, loss, passed):
    """ln 704 is 6.557; less is what the odds of pairs give."""
    log, facts = run / "metrics.jsonl", run / "run.json"
    lines = [json.loads(line) for line in log.read_text("utf-8").splitlines()]
    next(line for line in lines if line["event"] == "step")["loss"] = loss
    log.write_text("".join(f"{json.dumps(line)}\n" for line in lines), "utf-8")
    opened = open_model(str(run))
    prepared = open_prepared(prepared_folder(run, run_facts(run)))
    again = checks.Subject(opened, prepared, checks.small_network(opened.model.shape))
    found = checks.check_first_loss(again)
    assert found.passed is passed
    assert "at the run's first step" in found.says
    told = json.loads(facts.read_text("utf-8"))
    facts.write_text(json.dumps({**told, "warm_start": "another"}), "utf-8")
    found = checks.check_first_loss(again)
    assert found.passed
    assert "at the run's first step" not in found.says


def test_a_wrong_gradient_is_found(subject, monkeypatch):
    assert checks.check_gradients(subject).passed
    from nextword.kernels import choose, layers_cpu

    class Wrong(layers_cpu._RMSNorm):
        @staticmethod
        def backward(ctx, grad):
            gradient, *rest = layers_cpu._RMSNorm.backward(ctx, grad)
            return (gradient * 1.01, *rest)

    monkeypatch.setitem(choose.CPU, "rms_norm", lambda x, weight, eps: Wrong.apply(x, weight, eps))
    assert not checks.check_gradients(subject).passed


def test_a_hold_out_that_was_learned_from_is_found(subject, monkeypatch, tmp_path):
    assert checks.check_holdout(subject).passed
    prepared = replace(subject.prepared, holdout=subject.prepared.train, folder=tmp_path)
    leaky = replace(subject, prepared=prepared)
    assert not checks.check_holdout(leaky).passed


def test_a_log_that_tells_another_loss_is_found(subject, monkeypatch):
    assert checks.check_journal(subject).passed
    real = checks.Journal

    def flattering(run):
        events = [{**event, "nats_per_token": 0.9} for event in real(run).read("evaluation")]
        return SimpleNamespace(read=lambda *_: events)

    monkeypatch.setattr(checks, "Journal", flattering)
    assert not checks.check_journal(subject).passed


def test_other_models_are_refused_in_one_line(subject):
    masked = replace(subject.opened.model.shape, causal=False, qk_norm=False)
    opened = replace(subject.opened, model=Transformer(masked))
    with pytest.raises(EvaluationError, match="predicts the next token"):
        next(checks.checks(opened, subject.prepared))


def test_a_model_folder_alone_is_refused_in_one_line(shared, small_run, place):
    import shutil

    saved = sorted((shared.folder / "runs" / small_run / "checkpoints").iterdir())[-1]
    shutil.copytree(saved, place.folder / "alone", ignore=shutil.ignore_patterns("training"))
    done = place.nextword("check", "alone")
    assert done.returncode == 2
    assert "no hold-out of its own; name a run" in done.stderr
