"""Derived hyperparameters: steps, batch size, micro-batches and context from text and model."""

import math
from collections.abc import Callable

import torch

from nextword.base.errors import SettingsError
from nextword.machine.device import Machine
from nextword.machine.memory import free_memory
from nextword.model.shape import DEPTH, ModelSettings, Shape
from nextword.training.loop import Plan
from nextword.training.options import TrainingSettings

TOKENS_PER_PARAMETER = 20
"""Hoffmann et al. 2022 (Chinchilla).

The number of tokens at which a model of given size is best trained.
"""
EPOCHS, MOST_EPOCHS, LONG_TEXTS_EPOCHS = 4, 32, 3
"""Muennighoff et al. 2023: up to four readings of a text teach nearly as much as new text. A text
that takes minutes for each is read three times, for the fourth takes as long and brings least."""
FRESH_EPOCHS = 1
"""Of drawn stories: once; who wants to read more draws more."""
USUAL_BATCH, SMALLEST_BATCH, LARGEST_BATCH = 2048, 256, 2**19
FRESH_BATCH = 1024
"""Of a network that would take the usual batch, on stories: as far in less time, five seeds."""
ALL_SOFT, NONE_SOFT = 45_000, 1_500_000
"""Tokens of a text up to which soft targets begin as a whole, and from which there are none."""
SOFT_SLOPE = 0.4 / math.log(7)
TAUGHT = 1.0
"""Of each target at first, where other models say what they expect: 100 kB of four texts, taught by
three, ended 0.7 to 3.4 % lower with all of it than with 0.8; a megabyte of plays 0.1 % higher to
0.7 % lower than with 0.6 or 0.8."""
READINGS_BY_ROOT, BATCH_BY_ROOT = 1700.0, 30.0
"""Of a small text: readings times the square root, and tokens a step by the third root, of its
tokens.

Found on 10 and 100 kB of plays and of manuals, where 16 to 32 and 8 readings in steps of 512 and
1,024 tokens ended best, and joined there to 4 readings in steps of 2,048 at a megabyte.
"""
WRITTEN = ((8_000, 0.67), (30_000, 0.5))
"""Tokens of a text up to which counting writes such a share of the rows of each step.

10 kB of plays, verse and quotations ended 1 to 4 % lower with three quarters, 30 kB 1 to 6 % with
a half, 100 kB 0 to 1 %, which is not worth twice the time. Of three layers two thirds do as well.
"""
DEEPER_READS, DEEPER_READS_FROM = 0.75, WRITTEN[0][0]
"""Of as many readings, from three layers on, which learn more from each: on a megabyte of plays
three taught layers ended as low after three quarters of the steps, and four lower. And tokens of a
text from which on, for a smaller one's rows are mostly written."""
SMALL_TEXT, SMALL_TEXTS_DEPTH = 150_000, 3
"""Tokens of a text up to which there is time for a third layer: nine texts of 10 and 100 kB ended 0
to 5 % lower with it than with two, seven of 300 kB 1 to 4 %, in up to twice the time."""
DROPOUT, DROPOUT_FROM = 0.1, 3
"""Share that is left out, and layers from which on.

300 kB of plays, manuals, verse and quotations, which three layers begin to learn by heart, ended 1
to 2 % lower with it; two layers from 0.5 % lower to 1 % higher, and 0.2 is no better than 0.1.
"""
SHORTEST_CONTEXT, USUAL_CONTEXT, LONGEST_CONTEXT = 16, 256, 2048
OWN_CONTEXT = 512
"""Of a text of one's own, in which more returns than within a story: on 100 kB and a megabyte of
plays, manuals and verse 0 to 2 % better than 256 in a tenth more time, and 1,024 no better."""
MICRO_BATCH_TOKENS = {"cpu": 4096, "mps": 8192, "xpu": 16_384, "cuda": 32_768}


def default_context(model: ModelSettings, train_tokens: int, usual: int = USUAL_CONTEXT) -> int:
    """Return what is usual, more from some depth on, and at most a sixteenth of a small text."""
    wanted = max(usual, 128 * ((model.depth or DEPTH) // 2))
    return fitting_context(min(wanted, LONGEST_CONTEXT), train_tokens)


def fitting_context(context: int, train_tokens: int) -> int:
    """Halve a context until a text holds sixteen of it, down to 16 tokens."""
    while context > SHORTEST_CONTEXT and context * 16 > train_tokens:
        context //= 2
    return context


def default_soft_targets(train_tokens: int) -> float:
    """Return how much of each target counting gives at first: less the more text there is.

    All of it up to 45,000 tokens (100 kB), 0.6 at 315,000 (a megabyte), falling in a straight line
    of the logarithm; none from 1.5 million on, where nothing is learned by heart in four readings.
    """
    if train_tokens >= NONE_SOFT:
        return 0.0
    return round(min(1.0, 1 - SOFT_SLOPE * math.log(max(train_tokens, 1) / ALL_SOFT)), 2)


def default_written(train_tokens: int) -> float:
    """Return which share of a step's rows counting writes: of a small text most."""
    return next((share for most, share in WRITTEN if train_tokens <= most), 0.0)


def default_depth(train_tokens: int) -> int:
    """Return how many layers a text of one's own is given."""
    return SMALL_TEXTS_DEPTH if train_tokens <= SMALL_TEXT else DEPTH


def default_dropout(soft_targets: float, layers: int) -> float:
    """Return which share of what layers add is left out: of a deeper network that is read often."""
    return DROPOUT if soft_targets and layers >= DROPOUT_FROM else 0.0


def default_readings(settings: TrainingSettings, train_tokens: int, layers: int) -> float:
    """Return how often a text is read: four times; with soft targets more often if it is small.

    From 1.5 million tokens on less, with the root of their number, down to three times at 2.7.
    """
    if not settings.soft_targets:
        longer = max(train_tokens, NONE_SOFT) / NONE_SOFT
        return max(EPOCHS / math.sqrt(longer), LONG_TEXTS_EPOCHS)
    fewer = layers >= DROPOUT_FROM and train_tokens > DEEPER_READS_FROM
    usual = max(READINGS_BY_ROOT / math.sqrt(train_tokens), EPOCHS)
    return min(usual * (DEEPER_READS if fewer else 1.0), MOST_EPOCHS)


def default_batch(
    settings: TrainingSettings, shape: Shape, train_tokens: int, *, fresh: bool
) -> int:
    """Return the tokens a step learns from, a power of two.

    They grow with the square of the depth. A small text that is read often, with soft targets, is
    read in smaller steps, down to 256 tokens; stories are, too, by a network that looks back.
    """
    wanted = min(max(512 * shape.num_hidden_layers**2, USUAL_BATCH), LARGEST_BATCH)
    usual = 1 << (wanted - 1).bit_length()
    if fresh and shape.causal and usual == USUAL_BATCH:
        return FRESH_BATCH
    if not settings.soft_targets:
        return usual
    small = 1 << round(math.log2(BATCH_BY_ROOT * train_tokens ** (1 / 3)))
    return max(min(small, usual), SMALLEST_BATCH)


def make_plan(
    settings: TrainingSettings,
    shape: Shape,
    train_tokens: int,
    *,
    fresh: bool,
    device: str,
    ranks: int,
    together: int = 1,
) -> Plan:
    """Resolve steps and batch.

    Args:
        settings: what was said.
        shape: the network's sizes.
        train_tokens: in the training part.
        fresh: the text is drawn and never ends; it is then read once.
        device: kind of device, for what fits in memory.
        ranks: number of processes, or of groups of them, that read rows of their own.
        together: processes in such a group.

    """
    of_text = 1 - (settings.written or 0.0)
    wanted: float | None = settings.batch_tokens
    if wanted is None:
        wanted = default_batch(settings, shape, train_tokens, fresh=fresh) / of_text
    rows = max(1, round(wanted / shape.context))
    rows = max(1, rows // ranks) * ranks
    written = rows - max(1, round(rows * of_text))
    micro = settings.micro_batch_tokens or MICRO_BATCH_TOKENS.get(device, 4096)
    micro *= together  # each has its share of the positions
    micro_rows = max(1, min(micro // shape.context, rows // ranks))
    steps = settings.steps
    if steps is None:
        epochs = (
            FRESH_EPOCHS
            if fresh
            else default_readings(settings, train_tokens, shape.num_hidden_layers)
        )
        tokens = settings.tokens or min(
            TOKENS_PER_PARAMETER * shape.parameters(),
            epochs * train_tokens * rows / (rows - written),
        )
        steps = max(1, round(tokens / (rows * shape.context)))
    return Plan(steps, rows, micro_rows, shape.context, written=written)


def bytes_held(shape: Shape, training: TrainingSettings, device: torch.device) -> int:
    """Bound what weights, gradients and the optimizer's state take, and on a CPU what is saved."""
    copies = 4 if training.optimizer == "adamw" else 3  # Muon keeps one momentum a matrix
    if device.type == "cpu":
        copies += copies - 1  # all but the gradients
    return 4 * copies * shape.parameters()


def check_memory(
    shape: Shape,
    training: TrainingSettings,
    machine: Machine,
    of_depth: Callable[[int], Shape] | None = None,
    share: float = 1.0,
) -> None:
    """Refuse a network whose weights, gradients and optimizer state alone cannot fit.

    Where this machine's memory counts, with the copy of weights and state that is saved beside
    training; a GPU's holds no such copy.

    Args:
        shape: of the network.
        training: says the optimizer.
        machine: where.
        of_depth: sizes the network as the settings would at another depth.
        share: of all that, that has to fit: processes may divide it, and may share a memory.

    Raises:
        SettingsError: names what is needed, what is free, and the setting that would fit.
    """
    held = "weights, gradients and the optimizer's state"
    if machine.device.type == "cpu":
        held += ", and the copy of them that is saved"
    needed, free = (
        share * bytes_held(shape, training, machine.device),
        free_memory(machine.device),
    )
    if free is None or needed <= free:
        return
    depth = shape.num_hidden_layers
    advice = f"choose a smaller --model.depth (it is {depth}) or --model.hidden-size"
    for smaller in range(depth - 1, 0, -1) if of_depth is not None else ():
        try:
            of = of_depth(smaller)  # type: ignore[misc]
            if share * bytes_held(of, training, machine.device) <= free:
                advice = f"--model.depth {smaller} would fit"
                break
        except SettingsError:  # a size that was given does not go with that depth
            break
    raise SettingsError(
        f"a network of {shape.parameters():.3g} parameters needs {needed / 1e9:,.1f} GB for "
        f"{held}, and {free / 1e9:,.1f} GB are free here; {advice}"
    )
