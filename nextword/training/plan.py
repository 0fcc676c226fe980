"""Derived hyperparameters: steps, batch size, micro-batches and context from text and model."""

from nextword.model.shape import ModelSettings, Shape
from nextword.training.loop import Plan
from nextword.training.options import TrainingSettings

TOKENS_PER_PARAMETER = 20
"""Hoffmann et al. 2022 (Chinchilla).

The number of tokens at which a model of given size is best trained.
"""
EPOCHS = 4
"""Muennighoff et al. 2023: up to four readings of a text teach nearly as much as new text."""
FRESH_EPOCHS = 2
"""Of drawn stories: twice; the second reading evens out what was drawn when."""
FRESH_EPOCHS_MASKED = 1
"""Of a masked model, for which more stories are drawn: it would learn repeated ones by heart."""
SHORTEST_CONTEXT, LONGEST_CONTEXT = 16, 2048
MICRO_BATCH_TOKENS = {"cpu": 4096, "mps": 8192, "cuda": 32_768}


def default_context(model: ModelSettings, train_tokens: int) -> int:
    """Return 256 tokens, more from depth 6 on, and never more than a sixteenth of a small text."""
    return fitting_context(min(max(256, 128 * (model.depth // 2)), LONGEST_CONTEXT), train_tokens)


def fitting_context(context: int, train_tokens: int) -> int:
    """Halve a context until a text holds sixteen of it, down to 16 tokens."""
    while context > SHORTEST_CONTEXT and context * 16 > train_tokens:
        context //= 2
    return context


def make_plan(
    settings: TrainingSettings,
    shape: Shape,
    train_tokens: int,
    *,
    fresh: bool,
    device: str,
    ranks: int,
) -> Plan:
    """Resolve steps and batch.

    Args:
        settings: what was said.
        shape: the network's sizes.
        train_tokens: in the training part.
        fresh: the text is drawn and never ends; it is then read twice.
        device: kind of device, for what fits in memory.
        ranks: number of processes.

    """
    wanted = settings.batch_tokens
    if wanted is None:
        wanted = 1 << min(max((512 * shape.num_hidden_layers**2 - 1).bit_length(), 11), 19)
    rows = max(1, round(wanted / shape.context))
    rows = max(1, rows // ranks) * ranks
    micro = settings.micro_batch_tokens or MICRO_BATCH_TOKENS.get(device, 4096)
    micro_rows = max(1, min(micro // shape.context, rows // ranks))
    steps = settings.steps
    if steps is None:
        epochs = EPOCHS
        if fresh:
            epochs = FRESH_EPOCHS if shape.causal else FRESH_EPOCHS_MASKED
        tokens = settings.tokens or min(
            TOKENS_PER_PARAMETER * shape.parameters(), epochs * train_tokens
        )
        steps = max(1, round(tokens / (rows * shape.context)))
    return Plan(steps, rows, micro_rows, shape.context)
