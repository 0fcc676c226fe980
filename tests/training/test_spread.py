"""Layers that several processes compute together, and rows that they share: the same training."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from nextword.base.errors import SettingsError
from nextword.machine.copies import Copies
from nextword.machine.options import MachineSettings
from nextword.machine.parts import Part, Slab, block_of, mark, rows_of, whole_shape
from nextword.machine.ranks import Ranks
from nextword.model.shape import ModelSettings, resolve_shape
from nextword.training.checkpoint import list_checkpoints
from nextword.training.dividing import arranged, check_heads
from nextword.training.vouched import find_damage
from tests.place import Place
from tests.several import all_well, together
from tests.training.test_divided import (
    KINDS,
    SMALL,
    apart,
    check_alike,
    events,
    last_of,
    run_of,
)

SIZES = [
    *SMALL, "--model.num-attention-heads=4", "--model.num-key-value-heads=2", "--model.head-dim=16",
]  # fmt: skip
# 30 positions, which four cannot share evenly; layers twice, and all but their products twice.
ODD = ["--model.context=30", "--machine.recompute=full"]
# Some entries of a feed-forward that begins at zero have a gradient of nearly nothing, of which
# AdamW moves them by its sign alone: at 0.012 25 of 74,000 are 4e-4 apart, of two halves' rounding.
RATE = "--training.learning-rate=0.003"
MORE = {
    **KINDS,
    "causal-adamw": [*KINDS["causal-adamw"], RATE],
    "masked-adamw": [*KINDS["masked-adamw"], RATE],
    "odd": ["--training.optimizer=muon", "--training.dropout=0.1", *ODD],
    "odd-masked": ["--objective.name=masked", *ODD[:1], "--machine.recompute=selective"],
}
WAYS = {
    "tensor": ["--machine.tensor=2"],
    "tensor-poisoned": ["--machine.tensor=2"],
    "context": ["--machine.context=2"],
    "fsdp-context": ["--machine.context=2", "--machine.parallel=fsdp"],
    "fsdp-tensor": ["--machine.tensor=2", "--machine.parallel=fsdp"],
    "hsdp-tensor": ["--machine.tensor=2", "--machine.parallel=hsdp"],
    "both": ["--machine.tensor=2", "--machine.context=2", "--machine.parallel=fsdp"],
    "context-4": ["--machine.context=4"],
}
PROCESSES = {
    2: {
        "tensor": ["causal-muon", "causal-adamw", "masked-muon", "masked-adamw", "own"],
        "context": ["causal-muon", "masked-adamw"],
        "fsdp-context": ["own"],
        "tensor-poisoned": ["poisoned"],  # the last: what poisons a step stays
    },
    4: {
        "fsdp-tensor": ["causal-muon", "causal-adamw", "masked-muon", "masked-adamw"],
        "hsdp-tensor": ["causal-muon"],
        "both": ["odd", "odd-masked"],
        "context-4": ["odd"],
    },
}
CASES = [
    (kind, way) for ways in PROCESSES.values() for way, kinds in ways.items() for kind in kinds
]


def options(kind):
    """Of a kind of training, which overrule those of all."""
    more = {word.partition("=")[0] for word in MORE[kind]}
    return [word for word in SIZES if word.partition("=")[0] not in more] + MORE[kind]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Each kind of training by one process and by several, however they share the work."""
    place = Place(tmp_path_factory.mktemp("spread"))
    (place.folder / "own.txt").write_text("The hen and the fox, the fox and the hen. " * 900)
    kinds = sorted({kind for kind, _ in CASES})
    all_well(together(place, 1, *(["train", "--name", k, *options(k)] for k in kinds)))
    said = ""
    for count, ways in PROCESSES.items():
        commands = [
            ["train", "--name", f"{kind}-{way}", *options(kind), *WAYS[way]]
            for way, kinds in ways.items()
            for kind in kinds
        ]
        sent = {"SENT": str(place.folder / f"sent-{count}")}
        here = 4 if count == 4 else None
        for some, machine in (
            ([one for one in commands if "--machine.parallel=hsdp" not in one], here),
            ([one for one in commands if "--machine.parallel=hsdp" in one], 2),
        ):
            if some:
                said += all_well(together(place, count, *some, on_machine=machine, **sent))
    return place, said


@pytest.mark.parametrize(("kind", "way"), CASES)
def test_it_learns_what_one_process_does(trained, kind, way):
    place, _ = trained
    check_alike(place, kind, f"{kind}-{way}", lengths=2e-4)


def test_it_is_said_who_does_what_with_whom(trained):
    _, said = trained
    for words in (
        "2: those who compute a layer together hold all weights, which fit; 2 at a time compute",
        "2: each holds all weights, which fit; 2 at a time share the positions of each row",
        "4: they divide the weights among them, as was asked for; 2 at a time compute each layer "
        "together; 2 at a time share the positions of each row",
    ):
        assert f"processes   {words}" in said


def test_each_process_holds_its_part(trained):
    """Half of a layer where two compute it, a quarter where they divide it with two others."""
    place, _ = trained
    lines = (place.folder / "sent-2").read_text().splitlines()
    first = [told for told in map(json.loads, lines) if told["rank"] == 0][1]  # causal-adamw
    weights = load_file(last_of(place, "causal-adamw-tensor") / "model.safetensors")
    whole = sum(one.nbytes for one in weights.values())
    assert first["weights"] <= 0.53 * whole  # norms are there twice
    assert first["state"] <= 2 * 0.54 * whole


def test_it_goes_on_however_others_divide_the_work(trained):
    """Rows in the same order, bit for bit; losses go on within 1e-5."""
    place, _ = trained
    shutil.copytree(run_of(place, "causal-muon"), run_of(place, "chain"))
    chain = (
        (2, ["--machine.parallel=fsdp"], 24, "60000"),
        (2, ["--machine.tensor=2", "--machine.parallel=auto"], 28, "70000"),
        (4, ["--machine.tensor=2", "--machine.parallel=fsdp"], 32, str(1 << 40)),
        (2, ["--machine.tensor=1", "--machine.context=2"], 36, str(1 << 40)),
        (1, ["--machine.context=1", "--machine.parallel=auto"], 40, str(1 << 40)),
    )
    for count, words, upto, most in chain:
        command = ["train", "--resume", "chain", f"--training.steps={upto}", *words]
        all_well(together(place, count, command, FILE=most))
        assert list_checkpoints(run_of(place, "chain"))[-1].step == upto
        assert not find_damage(last_of(place, "chain"), whole=True)
    shutil.copytree(run_of(place, "causal-muon"), run_of(place, "alone"))
    words = [["--resume", "alone", f"--training.steps={upto}"] for upto in (24, 28, 32, 36, 40)]
    all_well(together(place, 1, *(["train", *one] for one in words)))
    chained, alone = (events(place, name, "step") for name in ("chain", "alone"))
    assert [one["step"] for one in chained] == list(range(1, 41))
    for one, other in zip(chained, alone, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], abs=1e-5)
    files = [last_of(place, name) / "model.safetensors" for name in ("chain", "alone")]
    assert apart(*files) < 1e-4


@pytest.mark.parametrize("way", ["tensor", "fsdp-context"])
def test_layers_are_compiled_with_what_they_send(trained, way):
    place, _ = trained
    name = f"compiled-{way}"
    words = ["train", "--name", name, *SIZES, *KINDS["causal-muon"], *WAYS[way]]
    words += ["--machine.compile=on", "--machine.recompute=selective"]
    said = all_well(together(place, 2, words, COUNTED="yes"))
    assert "graphs that were compiled: 1" in said
    for one, other in zip(
        events(place, name, "step"), events(place, "causal-muon", "step"), strict=True
    ):
        assert one["loss"] == pytest.approx(other["loss"], abs=1e-5)


def test_what_cannot_be_is_said_in_a_line(trained):
    place, _ = trained
    base = [word for word in SIZES if "heads" not in word]
    three = ["--model.num-attention-heads=3", "--model.num-key-value-heads=3"]
    wrong = (
        (["--machine.tensor=3"], "machine.tensor = 3: 2 processes cannot be divided"),
        (["--machine.context=3"], "machine.context = 3: 2 processes cannot be divided"),
        (["--machine.tensor=2"], "heads of keys (3) cannot be divided by it"),
        (["--machine.context=2", *three], "3 heads of queries and 3 of keys cannot be shared"),
    )
    commands = [["train", "--name", "no", *base, *words] for words, _ in wrong]
    (status, said), _ = together(place, 2, *commands)
    assert status == 2
    lines = [line for line in said.splitlines() if line.startswith("nextword: ")]
    for line, (_, why) in zip(lines, wrong, strict=True):
        assert why in line
    (place.folder / "rows.jsonl").write_text('{"text": "a hen", "label": "bird"}\n' * 20)
    ended = together(
        place, 4, ["train", "--resume", "causal-muon", "--training.steps=30", "--machine.tensor=4"]
    )
    assert ended[0][0] == 2
    assert "heads of keys (2) cannot be divided by it" in ended[0][1]
    alone = (
        ["train", "--name", "no", *SIZES, "--machine.tensor=2"],
        ["train", "--resume", "causal-muon-context", "--training.steps=30"],
        ["finetune", "causal-muon", "rows.jsonl", "--name", "no", "--machine.context=2"],
    )
    ((status, told),) = together(place, 1, *alone)
    assert status == 2
    assert told.count("1 process cannot be divided into groups of 2") == len(alone)
    assert "Traceback" not in said + told
    assert not run_of(place, "no").exists()


def test_heads_are_shared_out_only_evenly():
    def shape(heads, keys):
        sizes = {"num_attention_heads": heads, "num_key_value_heads": keys, "head_dim": 16}
        return resolve_shape(ModelSettings(depth=2, hidden_size=64, **sizes), 100, 32)

    for heads, keys, tensor, context in ((8, 2, 2, 4), (8, 4, 2, 2), (6, 6, 1, 3), (8, 1, 1, 8)):
        check_heads(shape(heads, keys), Ranks(size=8, tensor=tensor, context=context))
    for heads, keys, tensor, context in ((8, 2, 4, 1), (6, 6, 1, 4), (12, 6, 1, 4), (8, 2, 2, 3)):
        with pytest.raises(SettingsError, match="cannot be"):
            check_heads(shape(heads, keys), Ranks(size=8, tensor=tensor, context=context))


def test_who_stands_where():
    ranks = Ranks(size=16, on_machine=8, is_even=True)
    ranks = arranged(ranks, MachineSettings(tensor=2, context=2))
    assert (ranks.groups, ranks.workers, ranks.together) == (4, 8, 4)
    assert ranks.divides_weights
    assert (ranks.shares, ranks.pieces) == (1, 2)
    for way, shares in {"fsdp": 8, "hsdp": 4}.items():
        assert Ranks(size=16, on_machine=8, tensor=2, parallel=way).shares == shares
    seen = [Ranks(rank, 16, tensor=2, context=2).share(10) for rank in range(16)]
    assert seen == [pair for pair in ((0, 2), (2, 5), (5, 7), (7, 10)) for _ in range(4)]
    with pytest.raises(SettingsError, match="start 12 at most"):
        Ranks(0, 16, tensor=2, context=2).share(3)
    with pytest.raises(SettingsError, match="the 3 processes of a machine"):
        arranged(Ranks(size=6, on_machine=3), MachineSettings(tensor=2))


@pytest.mark.parametrize("dim", [0, 1, None])
def test_blocks_that_several_write_are_one_file(tmp_path, dim):
    """Each of six writes what it has of a matrix that two have halves of, divided by three."""
    whole = torch.arange(13.0 * 8).reshape(13, 8) if dim else torch.arange(14.0 * 8).reshape(14, 8)
    values = {"matrix": whole, "vector": torch.arange(7.0)}
    every = []
    for rank in range(6):
        half, slab = rank % 2, Slab(dim, rank % 2, 2, None, None)
        mine = whole if dim is None else whole.chunk(2, dim)[half]
        weight = torch.empty_like(mine)
        mark(weight, slab)
        assert whole_shape(weight) == whole.shape
        first, end = rows_of(mine.shape, rank // 2, 3)
        rows = mine[first:end].contiguous()
        down, left = (half * mine.shape[d] * (dim == d) for d in (0, 1))
        part = Part(rows, whole.shape, down + first, dim is None and half > 0, left)
        if dim is not None:
            block = block_of(weight, rank, 6)
            assert whole[block.rows, block.columns].equal(rows)
            assert block.shape == tuple(rows.shape)
        vector = Part(values["vector"], torch.Size([7]), is_copy=rank > 0)
        every.append(Copies.of({"matrix": part, "vector": vector}, divided=True))
    file = tmp_path / "all.safetensors"
    every[0].write(file)
    for copies in every[1:]:
        copies.write_rows(file)
    found = load_file(file)
    assert all(value.equal(found[name]) for name, value in values.items())
