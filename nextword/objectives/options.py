"""Settings of the objective."""

from dataclasses import dataclass

from nextword.base.errors import SettingsError
from nextword.base.options import option

MISSING = ("nan", "NaN", "null", "NULL", "None", "NA", "N/A", "n/a", "<NA>", "#N/A")
"""What programs write where a table has no value; in other letters ("none") it is a label."""


def finetune_rate(width: int, *, lora: bool = False) -> float:
    """Return the rate for a network of a width: 0.001 at 128, and 3e-5 at BERT's 768.

    With LoRA five times that: between what suited labels and answers. (benchmarks/lora.py)
    """
    return 0.001 * min(1.0, (128 / width) ** 2) * (5 if lora else 1)


@dataclass(frozen=True, kw_only=True)
class FinetuneSettings:
    """How examples that a person prepared are learned from."""

    task: str = option(
        "auto",
        "auto looks: prompts with answers (or chats), with two answers of which one was preferred "
        "(chosen and rejected), or texts with labels, whose kind labels.kind names; classification "
        "and regression are labels of the kinds class and number",
        choices=("auto", "classification", "regression", "answers", "preferences"),
    )
    text: str = option("text", "the field that holds the text")
    label: str = option("label", "the field that holds the label")
    prompt: str = option("prompt", "the field that holds the prompt")
    answer: str = option("answer", "the field that holds the answer")
    holdout: float = option(
        0.2, "share of the examples held out, alike in each class", minimum=0, maximum=0.9
    )
    class_weights: str = option(
        "none",
        "balanced counts each class alike, however rare it is",
        choices=("none", "balanced"),
    )
    steps: int | None = option(
        None,
        "optimizer steps",
        minimum=1,
        rule="ten readings of all, 100 to 2,000 steps",
        of=("the examples",),
    )
    batch_examples: int = option(32, "examples a step learns from", minimum=1)
    learning_rate: float | None = option(
        None,
        "of AdamW, at its peak",
        above=0,
        rule="0.001 up to 128 wide, less with the square; five times that with LoRA",
        of=("model.hidden_size", "finetune.lora_rank"),
    )
    weight_decay: float = option(0.0, "decoupled, of matrices", minimum=0)
    lora_rank: int = option(
        0,
        "teach two thin matrices of this rank beside each matrix (LoRA), and none of its weights; "
        "0 teaches all weights",
        minimum=0,
    )
    lora_alpha: float | None = option(
        None,
        "what the thin matrices' product is multiplied by, over the rank",
        above=0,
        rule="twice the rank",
        of=("finetune.lora_rank",),
    )
    beta: float = option(
        0.1, "of preferences (DPO): how dear it is to leave the model that it begins with", above=0
    )
    seed: int = option(0, "of the hold-out, the order and new weights", minimum=0)


@dataclass(frozen=True, kw_only=True)
class ExamplesSettings:
    """Which examples are learned from where not all of them can be."""

    too_long: str = option(
        "drop",
        "prompts with answers that are longer than the context: leave them out and count them, "
        "keep the prompt's end and all of the answer, or stop at the first",
        choices=("drop", "truncate", "refuse"),
    )
    bad_share: float = option(
        0.01,
        "share of the rows that may be unusable (no answer, another shape, …) and are left out; "
        "beyond it nothing is learned and five of them are named",
        unit="fraction",
        minimum=0,
        maximum=1,
    )


@dataclass(frozen=True, kw_only=True)
class LabelsSettings:
    """How labels are understood."""

    kind: str = option(
        "auto",
        "auto looks: words, whole numbers, true and false name a class, numbers with a decimal "
        "point are quantities, lists hold several labels of a text",
        choices=("auto", "class", "number", "multi"),
    )
    missing: tuple[str, ...] = option(
        MISSING,
        "texts that stand for no label, as do nothing, null and NaN; such rows are left out",
    )


@dataclass(frozen=True, kw_only=True)
class ObjectiveSettings:
    """What is asked of the network, and how tokens are hidden where they are."""

    name: str = option(
        "causal", "what is asked: causal (GPT: the next token) or masked (BERT: hidden tokens)"
    )
    rate: float = option(
        0.4,
        "share of a row's tokens that are hidden",
        unit="of all",
        above=0,
        maximum=0.9,
    )
    mask_share: float = option(
        0.8, "of the hidden tokens: replaced by the mask", minimum=0, maximum=1
    )
    random_share: float = option(
        0.1, "of the hidden tokens: replaced by any other; the rest stay", minimum=0, maximum=1
    )
    evaluation_seed: int = option(
        0, "of the places hidden in evaluations: the same each time", minimum=0
    )

    def __post_init__(self) -> None:
        """Refuse shares that are more than all."""
        if self.mask_share + self.random_share > 1 + 1e-9:
            raise SettingsError(
                f"objective.mask_share = {self.mask_share} and objective.random_share = "
                f"{self.random_share} are together more than 1"
            )
