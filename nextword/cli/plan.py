"""Command line: plan."""

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from nextword.cli.explain import has_color
from nextword.cli.program import TRAIN, AsJson, app, say, takes, write

if TYPE_CHECKING:
    from nextword.model.shape import Shape

USUAL_ENTRIES = 50_304
USUAL_CONTEXT = 2048


@app.command(group=TRAIN)
@takes(("model",))
def plan(
    model: Annotated[
        str | None,
        Parameter(help="a run, a model folder or its config.json, in place of --model"),
    ] = None,
    *,
    devices: Annotated[int, Parameter(help="how many cards")] = 8,
    device: Annotated[str, Parameter(help="which: a100, h100, h200, b200, mi300x")] = "h100",
    per_machine: Annotated[int, Parameter(help="cards in a machine")] = 8,
    tflops: Annotated[
        float | None, Parameter(help="of the card's large products in bfloat16, as measured")
    ] = None,
    attention: Annotated[
        float | None, Parameter(help="share of its TFLOP/s that attention reaches")
    ] = None,
    memory: Annotated[float | None, Parameter(help="of the card, GB")] = None,
    bandwidth: Annotated[float | None, Parameter(help="of the card's memory, TB/s")] = None,
    link: Annotated[float | None, Parameter(help="GB/s to cards of its machine, each way")] = None,
    network: Annotated[float | None, Parameter(help="GB/s of each card to other machines")] = None,
    watts: Annotated[float | None, Parameter(help="of the card, at most")] = None,
    optimizer: Annotated[
        str, Parameter(name="--training.optimizer", help="muon or adamw")
    ] = "muon",
    batch_tokens: Annotated[
        int | None,
        Parameter(name="--training.batch-tokens", help="of a step (default: by depth and cards)"),
    ] = None,
    micro_batch_tokens: Annotated[
        int | None,
        Parameter(
            name="--training.micro-batch-tokens",
            help="at once on a card, at most (default: 32,768)",
        ),
    ] = None,
    tensor: Annotated[
        int | None,
        Parameter(
            name="--machine.tensor",
            help="cards that compute each layer together (default: one, and a machine's)",
        ),
    ] = None,
    shared: Annotated[
        int | None,
        Parameter(
            name="--machine.context", help="groups of them that share each row (default: one)"
        ),
    ] = None,
    tokens: Annotated[
        float | None,
        Parameter(name="--training.tokens", help="to learn from (default: 20 a parameter)"),
    ] = None,
    entries: Annotated[
        int, Parameter(name="--vocabulary.size", help="of the vocabulary")
    ] = USUAL_ENTRIES,
    json_: AsJson = False,
    **options: Any,
) -> None:
    """Say what a network takes on many cards: memory, traffic, time."""
    from nextword.base.errors import SettingsError
    from nextword.base.options import check_options
    from nextword.explanation.layouts import plan_layouts, usual_tokens, ways_of
    from nextword.explanation.step_time import Fleet
    from nextword.machine.accelerators import GIVEN, find_accelerator
    from nextword.rendering.layouts import describe_layouts
    from nextword.training.optimizers import check_name
    from nextword.training.options import TrainingSettings
    from nextword.training.plan import default_batch

    told = dict(
        zip(GIVEN, (tflops, attention, memory, bandwidth, link, network, watts), strict=True)
    )
    card = find_accelerator(device, {what: one for what, one in told.items() if one is not None})
    for name, number, most in (("devices", devices, 1 << 20), ("per-machine", per_machine, 4096)):
        if not 1 <= number <= most:
            raise SettingsError(f"--{name} {number}: must be 1 to {most:,}")
    if not 2 <= entries <= 1 << 26:
        raise SettingsError(f"--vocabulary.size {entries}: must be 2 to {1 << 26:,}")
    if tokens is not None and not 1 <= tokens < 1e18:
        raise SettingsError(f"--training.tokens {tokens:g}: must be at least 1, and below 10^18")
    shape = _shape(model, options, entries)
    training = TrainingSettings(
        optimizer=optimizer, batch_tokens=batch_tokens, micro_batch_tokens=micro_batch_tokens
    )
    check_options(training, "training")
    check_name(training)
    fleet = Fleet(card=card, count=devices, per_machine=per_machine)
    wanted = batch_tokens or default_batch(training, shape, 1 << 62, fresh=False)
    total = tokens or usual_tokens(shape)
    for name, many in (("tensor", tensor), ("context", shared)):
        if many is not None and not 1 <= many <= devices:
            raise SettingsError(f"--machine.{name} {many}: must be 1 to {devices:,}, the cards")
    ways = ways_of(shape, fleet, tensor, shared)
    if not json_:
        say("counting what each card would hold, in each way there is (half a minute)")
    found = plan_layouts(shape, training, fleet, batch_tokens=wanted, tokens=total, ways=ways)
    if json_:
        write(json.dumps([one.as_dict() for one in found]))
        return
    color = has_color()
    lines = describe_layouts(found, shape, fleet, tokens=total, color=color)
    write(lines, is_colored=color)


def _shape(model: str | None, options: dict[str, Any], entries: int) -> "Shape":
    """Return the network's sizes: those of a config.json, or those that are named."""
    from nextword.base.errors import SettingsError
    from nextword.model.config import CONFIG, read_config_file
    from nextword.model.layouts import sizes_of
    from nextword.model.shape import resolve_shape
    from nextword.prediction.loading import find_model_folder
    from nextword.settings import resolve

    if model is None:
        return resolve_shape(resolve(None, options).model, entries, USUAL_CONTEXT)
    other = [name for name in options if name != "model.context"]
    if other:
        raise SettingsError(f"--{other[0]} is said by {model}; give the one or the other")
    file = Path(model)
    if file.suffix == ".json" and not file.is_file():
        raise SettingsError(f"{model}: no such file; name a run, a model folder or a config.json")
    if not file.is_file():
        file = find_model_folder(model)[0] / CONFIG
    sizes = sizes_of(read_config_file(file), file)
    context = resolve(None, options).model.context
    return sizes if context is None else replace(sizes, context=context)
