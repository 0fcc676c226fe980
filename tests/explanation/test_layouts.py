"""Ways of dividing a network among cards: what is sent, how long it takes, what fits."""

import json
import runpy
from dataclasses import replace
from pathlib import Path

import pytest

from nextword.base.errors import SettingsError
from nextword.explanation import layouts
from nextword.explanation.layouts import FEW, Way, _Rehearsals, plan_layouts, usual_rows, ways_of
from nextword.explanation.step_time import Fleet, Work, sent_bytes, step_seconds, within_layers
from nextword.machine.accelerators import ACCELERATORS, find_accelerator
from nextword.model.shape import ModelSettings, resolve_shape
from nextword.model.transformer import Transformer
from nextword.training.options import TrainingSettings
from nextword.training.rehearsal import Case, Held, pretended, rehearse
from tests.traffic import TOGETHER, expected, expected_together

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SHAPE = resolve_shape(ModelSettings(depth=4, hidden_size=128), 1_000, 64)
LARGE = resolve_shape(ModelSettings(depth=32, hidden_size=4096), 50_304, 4096)
WORK = Work(rows=4, micro_rows=4, recompute="none", compiled=True, optimizer="adamw")
ALL_WAYS = ("ddp", "fsdp", "hsdp")


def fleet(count=16, per_machine=8, **changed):
    card = replace(find_accelerator("h100", {}), **changed)
    return Fleet(card=card, count=count, per_machine=per_machine)


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
@pytest.mark.parametrize(("way", "size", "here"), [("ddp", 4, 4), ("fsdp", 4, 2), ("hsdp", 4, 2)])
def test_what_is_sent_is_what_processes_send(way, size, here, optimizer):
    """tests/traffic.py counts that, operation by operation, beside the same formulas."""
    shape = resolve_shape(ModelSettings(depth=4, hidden_size=96), 1_000, 32)
    weights = {name: list(one.shape) for name, one in Transformer(shape).named_parameters()}
    work = replace(WORK, optimizer=optimizer)
    told = sum(sent_bytes(shape, fleet(size, here), way, work))
    assert told == pytest.approx(expected(weights, way, size, optimizer), rel=0.01)


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
@pytest.mark.parametrize("way", TOGETHER)
def test_what_is_sent_within_layers_is_what_processes_send(way, optimizer):
    shape = resolve_shape(
        ModelSettings(depth=4, hidden_size=96, num_attention_heads=4, num_key_value_heads=4),
        1_000, 32,
    )  # fmt: skip
    size, parallel, tensor, context = TOGETHER[way]
    work = replace(WORK, optimizer=optimizer, tensor=tensor, context=context)
    told = sum(sent_bytes(shape, fleet(size, size), parallel, work))
    layers = sum(within_layers(shape, work)) * 2 * shape.num_hidden_layers
    weights = {name: list(one.shape) for name, one in Transformer(shape).named_parameters()}
    # A run on CPUs sends what it computes with, in float32; the plan is of cards, in bfloat16.
    counted = expected_together(weights, way, optimizer, shape, work.rows * shape.context)
    assert told + layers == pytest.approx(counted, rel=0.01)


def test_layers_that_cards_compute_together_stay_on_a_machine():
    work = replace(WORK, tensor=8)
    alone, many = (sent_bytes(LARGE, fleet(count), "fsdp", work) for count in (8, 64))
    assert alone[1] == 0
    assert many[0] >= alone[0] * 0.9
    assert 0 < many[1] < many[0]
    # Of a group of eight machines each card is the only one of its own.
    weights = 12 * (LARGE.matrix_parameters() - LARGE.vocab_size * LARGE.hidden_size)
    assert many[1] == pytest.approx(weights / 8 * 7 / 8, rel=0.2)


def test_rows_that_are_shared_cost_what_others_do_but_for_messages():
    """However long: nobody computes a second time what another does."""
    shape = replace(LARGE, context=131_072)
    fast = fleet(64, link=1e9, network=1e9)
    one = step_seconds(shape, fast, "fsdp", replace(WORK, rows=1, micro_rows=1))
    for tensor, context in ((8, 1), (1, 8), (4, 2)):
        work = replace(WORK, rows=1, micro_rows=1, tensor=tensor, context=context)
        eighth = step_seconds(shape, fast, "fsdp", work)
        assert eighth == pytest.approx(one / 8, rel=0.02)
        slower = step_seconds(shape, fleet(64, link=1e9, network=10), "fsdp", work)
        assert slower > eighth


def test_layers_are_planned_for_one_card_and_for_all_of_a_machine():
    ways = ways_of(LARGE, fleet(64))
    assert {way.tensor for way in ways} == {1, 8}
    assert Way("hsdp", "none", 8) not in ways  # that is ddp's
    assert {way.tensor for way in ways_of(LARGE, fleet(1))} == {1}
    grouped = replace(LARGE, num_key_value_heads=6, num_attention_heads=12)
    assert {way.tensor for way in ways_of(grouped, fleet(64))} == {1, 2}
    assert {(w.tensor, w.context) for w in ways_of(LARGE, fleet(64), 4, 2)} == {(4, 2)}
    with pytest.raises(SettingsError, match="heads of keys"):
        ways_of(grouped, fleet(64), 4)
    with pytest.raises(SettingsError, match="cannot be divided into groups of 3"):
        ways_of(LARGE, fleet(64), 1, 3)


def test_only_what_must_goes_between_machines():
    for way in ALL_WAYS:
        assert sent_bytes(LARGE, fleet(8), way, WORK)[1] == 0
        within, between = sent_bytes(LARGE, fleet(64), way, WORK)
        assert 0 < between < within / 4


def test_where_nothing_else_takes_time_products_do():
    at_once = fleet(8, bandwidth=1e9, link=1e12, network=1e12, attention=1e3)
    seconds = step_seconds(LARGE, at_once, "fsdp", WORK)
    tokens = WORK.rows * LARGE.context
    products = 6 * LARGE.matrix_parameters() * tokens
    assert seconds == pytest.approx(products / at_once.card.products, rel=0.01)
    twice = step_seconds(LARGE, at_once, "fsdp", replace(WORK, recompute="full"))
    assert twice == pytest.approx(seconds * 4 / 3, rel=0.02)


def test_slow_links_are_hidden_up_to_a_point():
    usual = step_seconds(LARGE, fleet(64), "fsdp", WORK)
    faster = step_seconds(LARGE, fleet(64, network=500), "fsdp", WORK)
    slower = step_seconds(LARGE, fleet(64, network=1), "fsdp", WORK)
    assert faster > 0.9 * usual
    assert slower > 3 * usual
    layers = LARGE.parameters() - LARGE.vocab_size * LARGE.hidden_size
    sent = 12 * layers / (0.7e9 * 8)  # of three passes; eight networks of a gigabyte a second
    assert slower == pytest.approx(sent, rel=0.2)
    assert step_seconds(LARGE, fleet(64, network=1), "hsdp", WORK) < slower


def test_it_agrees_with_what_others_have_published():
    plans = runpy.run_path(str(BENCHMARKS / "plans.py"))
    published = json.loads((BENCHMARKS / "published.json").read_text())["mpt"]
    aside = [run for run in published["runs"] if not plans["is_fitted"](run)]
    ratios = [plans["reckoned"](run, published["networks"]) / run[-1] for run in aside]
    kept = json.loads((BENCHMARKS / "results" / "plans.json").read_text())
    assert plans["spread"](ratios) == kept["mpt_kept_aside"]
    assert kept["mpt_kept_aside"]["within_25_per_cent"] >= 0.9
    assert all(abs(one["ratio"] - 1) < 0.25 for one in kept["llama-3.1-8b"])
    fast = kept["llama-3.1-float8"]["runs"]
    whole = [run[-1] for run in fast if run[3] <= 2]
    assert len(whole) == 4
    assert all(abs(ratio - 1) < 0.25 for ratio in whole)
    runs = json.loads((BENCHMARKS / "published.json").read_text())
    of_ours, of_theirs = runs["llama-3.1-float8"]["runs"], runs["llama-3.1-8b"]["runs"][1][2]
    assert plans["llama_float8"](of_ours, of_theirs) == kept["llama-3.1-float8"]
    paper = kept["llama-3-paper"]
    assert plans["llama_paper"](runs["llama-3-paper"]["runs"]) == paper
    assert len(paper) == 3
    assert all(abs(run[-1] - 1) < 0.25 for run in paper)
    for one in kept["llama-3.1-8b"]:
        assert abs(one["rehearsed_GiB"] / one["published_GiB"] - 1) < 0.25


def evenly(shape, training, ranks, cases):
    """Stand for a rehearsal, which other tests look at: what is held grows evenly."""
    whole, held = 4 * shape.parameters() // ranks.pieces, []
    for rows, recompute in cases:
        kept = {"none": 400, "full": 40}[recompute] * shape.hidden_size * shape.context * rows
        peaks = 3 * whole + kept, 4 * whole + kept, 4 * whole, 4 * whole
        held.append(Held(whole, whole, 2 * whole, *peaks))
    return held


def test_the_page_tells_what_was_planned():
    """The table of docs/scale.md is that of results/plans.json."""
    kept = json.loads((BENCHMARKS / "results" / "plans.json").read_text())
    page = (BENCHMARKS.parent / "docs" / "scale.md").read_text()
    for name, found in kept["worked"].items():
        best = found[0]
        (row,) = [line for line in page.splitlines() if line.startswith(f"| {name}")]
        cells = [cell.strip() for cell in row.strip("|").split("|")][1:]
        assert (best["tensor"], best["context"]) == (1, 1)
        assert cells[:2] == [best["parallel"], best["recompute"]]
        assert cells[2].startswith(f"{best['micro_rows']} of ")
        assert cells[3:] == [
            f"{best['memory_bytes'] / 1e9:.1f}", f"{best['tokens_per_second']:,.0f}",
            f"{best['mfu']:.0%}".replace("%", " %"), f"{best['days']:.1f}",
            f"{best['megawatt_hours']:.1f}",
        ]  # fmt: skip
    aside = kept["mpt_kept_aside"]
    assert f"{aside['within_25_per_cent']:.0%}".replace("%", " % come out") in page
    assert f"{aside['within_10_per_cent']:.0%}".replace("%", " % within a tenth") in page
    rehearsed = json.loads((BENCHMARKS / "results" / "rehearsed.json").read_text())["found"]
    ratios = [one["foreseen_beside_measured"] for one in rehearsed]
    assert f"at most {1 - min(ratios):.1%} less".replace("%", " %") in page
    assert max(ratios) < 1.01


def test_the_best_comes_first_and_what_does_not_fit_last(monkeypatch):
    monkeypatch.setattr(layouts, "rehearse", evenly)
    training = TrainingSettings(optimizer="adamw")
    found = plan_layouts(
        SHAPE, training, fleet(4, 4, memory=0.013), batch_tokens=64 * 64, tokens=1e6,
        ways=[Way("ddp", "none"), Way("fsdp", "none"), Way("fsdp", "full")],
    )  # fmt: skip
    fits = [not one.lacks for one in found]
    assert fits == sorted(fits, reverse=True)
    assert fits[0]
    rates = [one.tokens_per_second for one in found if not one.lacks]
    assert rates == sorted(rates, reverse=True)
    for one in found:
        assert one.lacks or one.memory_bytes <= 0.92 * 0.013e9
        assert one.tokens_per_second == pytest.approx(64 * 64 / one.step_seconds)
        assert one.days * 86400 == pytest.approx(1e6 / one.tokens_per_second)
        assert one.megawatt_hours == pytest.approx(one.days * 24 * 4 * 700 / 1e6)
    (none,) = plan_layouts(
        SHAPE, training, fleet(4, 4, memory=0.004), batch_tokens=64 * 64, tokens=1e6,
        ways=[Way("ddp", "none")],
    )  # fmt: skip
    assert none.lacks.startswith("needs ")
    assert none.micro_rows == 1
    with pytest.raises(SettingsError, match="12 cards do not fill machines of 8"):
        plan_layouts(SHAPE, training, fleet(12), batch_tokens=12, tokens=1.0)


def test_more_rows_are_foreseen_as_a_rehearsal_of_them_says():
    training, many = TrainingSettings(), 7
    shape = replace(SHAPE, context=1024, num_hidden_layers=2)
    for way, size in (("ddp", 2), ("fsdp", 4)):
        told = _Rehearsals(shape, training, fleet(size, size)).held(Way(way, "none"))(many)
        with pretended(size, size, way) as ranks:
            (whole,) = rehearse(shape, training, ranks, [Case(many)])
        assert told.peak == pytest.approx(whole.peak, rel=0.02)


@pytest.mark.parametrize("way", ["fsdp", "hsdp"])
def test_more_cards_hold_less_than_was_rehearsed(way):
    count = 4 * FEW
    shape = resolve_shape(ModelSettings(depth=2, hidden_size=512), 1_000, 4096)
    training = TrainingSettings()
    told = _Rehearsals(shape, training, fleet(count)).held(Way(way, "none"))(1)
    with pretended(count, 8, way) as ranks:
        (whole,) = rehearse(shape, training, ranks, [Case(1)])
    assert told.peak == pytest.approx(whole.peak, rel=0.02)
    assert told.state == pytest.approx(whole.state, rel=0.02)


def test_parts_share_a_cards_rows_evenly(monkeypatch):
    """As a compiled run takes them, whose layers are compiled for one shape."""
    monkeypatch.setattr(layouts, "rehearse", evenly)
    training = TrainingSettings(optimizer="adamw")
    found = []
    for memory in (1.0, 0.02, 0.016):
        told = fleet(2, 2, memory=memory)
        (one,) = plan_layouts(
            SHAPE, training, told, batch_tokens=18 * 64, tokens=1.0, ways=[Way("fsdp", "none")]
        )
        found.append((one.micro_rows, one.parts))
    assert found[0] == (9, 1)
    assert {(micro * parts) for micro, parts in found} == {9}
    assert len(set(found)) > 1


@pytest.mark.parametrize(
    ("way", "tensor", "context"), [("fsdp", 2, 1), ("fsdp", 1, 2), ("ddp", 2, 2)]
)
def test_cards_that_work_together_hold_what_a_rehearsal_says(way, tensor, context):
    shape = resolve_shape(
        ModelSettings(depth=2, hidden_size=512, num_attention_heads=8, num_key_value_heads=4),
        1_000, 4096,
    )  # fmt: skip
    count, training = 16 * tensor, TrainingSettings()
    told = _Rehearsals(shape, training, fleet(count)).held(Way(way, "none", tensor, context))
    with pretended(count, 8, way, tensor=tensor, context=context) as ranks:
        (whole,) = rehearse(shape, training, ranks, [Case(2 * ranks.together)])
    assert told(2 * ranks.together).peak == pytest.approx(whole.peak, rel=0.02)


def test_few_rows_are_rehearsed_as_they_are():
    shape = replace(SHAPE, num_hidden_layers=2)
    for recompute in ("none", "full"):
        told = _Rehearsals(shape, TrainingSettings(), fleet(4, 4)).held(Way("fsdp", recompute))(1)
        with pretended(4, 4, "fsdp") as ranks:
            (whole,) = rehearse(shape, TrainingSettings(), ranks, [Case(1, recompute)])
        assert told == whole


def test_where_each_holds_all_the_first_saves_it(monkeypatch):
    monkeypatch.setattr(layouts, "rehearse", evenly)
    of = (SHAPE, TrainingSettings(optimizer="adamw"), fleet(16))
    ddp, fsdp = (
        plan_layouts(*of, batch_tokens=16 * 64, tokens=1.0, ways=[Way(way, "none")])[0]
        for way in ("ddp", "fsdp")
    )
    assert ddp.host_bytes == ddp.memory["weights"] + ddp.memory["optimizer"]
    assert fsdp.host_bytes == 8 * (fsdp.memory["weights"] + fsdp.memory["optimizer"])


def test_rows_are_shared_out_evenly():
    assert usual_rows(SHAPE, 64 * 100, 16) == 96
    assert usual_rows(SHAPE, 64, 16) == 16


def test_cards_are_known_by_name_or_told():
    for name, card in ACCELERATORS.items():
        assert find_accelerator(name.upper(), {}) is card
        assert card.source
        assert 0 < card.reached < 1
    told = find_accelerator("h100", {"tflops": 500.0, "memory": 96.0})
    assert (told.products, told.memory, told.tflops) == (pytest.approx(500e12), 96.0, 989.4)
    assert "given: tflops 500, memory 96" in told.source
    usual = find_accelerator("h100", {})
    same = find_accelerator("h100", {"tflops": usual.tflops * usual.reached})
    work = replace(WORK, optimizer="muon")
    times = [
        step_seconds(LARGE, Fleet(card=card, count=8, per_machine=8), "fsdp", work)
        for card in (usual, same)
    ]
    assert times[0] == pytest.approx(times[1])
    assert find_accelerator("h100", {"tflops": 2000.0}).tflops == 2000.0
    with pytest.raises(SettingsError, match=r"no accelerator 'h10' in the table.*h100"):
        find_accelerator("h10", {})
    for wrong in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(SettingsError, match="--memory"):
            find_accelerator("h100", {"memory": wrong})
