"""Settings of training and of the evaluations on the way."""

from dataclasses import dataclass

from nextword.base.errors import SettingsError
from nextword.base.options import option

RATE, RATE_MASKED = 0.012, 0.006
MATRIX_RATE, MATRIX_RATE_MASKED = 0.03, 0.02


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How the loss is made smaller."""

    steps: int | None = option(
        None,
        "optimizer steps",
        minimum=1,
        maximum=1 << 40,
        unit="steps",
        rule="training.tokens / training.batch_tokens",
        of=("training.tokens", "training.batch_tokens"),
    )
    tokens: int | None = option(
        None,
        "tokens to read in all",
        minimum=1,
        unit="tokens",
        rule="20 a parameter, at most 4 times the text (from 1.5 million tokens on 4,900 / √tokens "
        "times, at least 3), or with soft targets 1,700 / √tokens times, 4 to 32 (from 3 layers "
        "and 8,000 tokens on three quarters of that), and what counting writes beside; the stories "
        "once",
        of=("the network", "the text", "training.soft_targets", "training.written"),
    )
    pace: str | None = option(
        None,
        "how the number of steps changed on the way, as a run that followed the clock wrote it "
        "down: STEP:STEPS, parted by blanks",
        rule="it does not change",
    )
    rates: str | None = option(
        None,
        "by what the rate was multiplied on the way, as a run whose rate somebody lowered wrote it "
        "down: STEP:SHARE, parted by blanks",
        rule="as the schedule says",
    )
    minutes: float | None = option(
        None,
        "train for so long, all counted, and choose the network, the batch and the steps for it",
        above=0,
        unit="minutes",
        rule="as long as the steps take",
    )
    batch_tokens: int | None = option(
        None,
        "tokens a step learns from",
        minimum=1,
        maximum=1 << 31,
        unit="tokens",
        rule="512 × depth², up to the next power of two, 2,048 to 524,288; with soft targets at "
        "most the power of two nearest 30 × ∛tokens, from 256 on, and what counting writes "
        "beside; 1,024 on the stories, up to depth 2 and not masked",
        of=("model.depth", "the text", "training.soft_targets", "training.written"),
    )
    micro_batch_tokens: int | None = option(
        None,
        "tokens held in memory at once; the rest of a step is accumulated",
        minimum=1,
        maximum=1 << 31,
        unit="tokens",
        rule="4,096 on a CPU, 8,192 on MPS, 16,384 on XPU, 32,768 on CUDA",
        of=("the machine",),
    )
    optimizer: str = option("muon", "Muon for matrices and AdamW for the rest, or AdamW alone")
    learning_rate: float | None = option(
        None,
        "of AdamW, at its peak",
        above=0,
        rule="0.012; for masked models 0.006; with --from times (128/width)² where wider",
        of=("objective.name", "--from"),
    )
    matrix_learning_rate: float | None = option(
        None,
        "of Muon, at its peak",
        above=0,
        rule="0.03; for masked models 0.02; with --from times (128/width)² where wider",
        of=("objective.name", "--from"),
    )
    weight_decay: float = option(0.0, "decoupled, of matrices", minimum=0)
    dropout: float | None = option(
        None,
        "share of the channels of what each half of a layer adds that is left out while it is "
        "trained, drawn anew for each row and every 16 positions",
        minimum=0,
        maximum=0.9,
        rule="0.1 with soft targets from 3 layers on, else 0",
        of=("training.soft_targets", "model.depth"),
    )
    soft_targets: float | None = option(
        None,
        "share of each target that is what counting the rest of the text expects there, or "
        "training.teacher, at the first step; it falls by 0.4 until the last",
        minimum=0,
        maximum=1,
        rule="for a text of one's own 1 up to 45,000 tokens, falling with their logarithm to 0.6 "
        "at 315,000, and 0 from 1.5 million on; 0 for stories, masked models, mixtures and with "
        "--from; 1 with a teacher",
        of=("the text", "objective.name", "--from", "training.teacher"),
    )
    teacher: str | None = option(
        None,
        "a run, RUN@STEP or model folder of the same vocabulary, or several parted by commas: soft "
        "targets are what they expect (distillation)",
        rule="what counting expects",
    )
    written: float | None = option(
        None,
        "share of each step's rows that are not the text's: counting writes them, like the text, "
        "and says what it expects at each place of them",
        minimum=0,
        maximum=0.95,
        rule="for a text of one's own 0.67 up to 8,000 tokens, 0.5 up to 30,000, else 0; 0 for "
        "stories, masked models, mixtures, without soft targets and with --from",
        of=("the text", "objective.name", "training.soft_targets", "--from"),
    )
    beta1: float = option(0.9, "AdamW's memory of the gradient", minimum=0, maximum=0.9999)
    beta2: float = option(0.99, "AdamW's memory of its square", minimum=0, maximum=0.99999)
    warmup_steps: int | None = option(
        None,
        "steps of rising rate",
        minimum=0,
        unit="steps",
        rule="20, at most a tenth",
        of=("training.steps",),
    )
    decay_share: float = option(
        1.0, "share of the steps over which the rate falls to zero", minimum=0, maximum=1
    )
    decay_power: float | None = option(
        None,
        "of the fall: 1 a straight line, above 1 gentler at its end",
        above=0,
        rule="2 on the stories, 3 where they are masked, which averages their odds over more "
        "steps; else 1",
        of=("the text", "objective.name"),
    )
    decay: str = option(
        "power",
        "form of the fall: a straight line, or as decay-power says; or half a cosine",
        choices=("power", "cosine"),
    )
    decay_floor: float = option(
        0.0, "share of the peak rate at which the fall ends", minimum=0, maximum=1
    )
    clip_norm: float = option(1.0, "longest gradient let through; 0 lets all through", minimum=0)
    on_nan: str = option(
        "stop",
        "where loss or gradient is no number: stop, or go back to the last good checkpoint and "
        "leave that batch out, at most three times",
        choices=("stop", "rollback"),
    )
    on_spike: str = option(
        "log",
        "where a gradient is far longer than usual: write it down, or skip that step too",
        choices=("log", "skip"),
    )
    spike_factor: float = option(
        10.0, "times the median length of the last hundred gradients: far longer", above=1
    )
    within_documents: bool = option(True, "positions look only at their own document")
    evaluate_every: int | None = option(
        None,
        "steps between evaluations",
        minimum=1,
        unit="steps",
        rule="a quarter of all",
        of=("training.steps",),
    )
    evaluate_tokens: int | None = option(
        None,
        "hold-out tokens scored on the way; at the end all are",
        minimum=1,
        unit="tokens",
        rule="40,000, at most half of what is read between two evaluations, at least 4,000",
        of=("training.steps", "training.batch_tokens", "training.evaluate_every"),
    )
    checkpoint_every: int | None = option(
        None,
        "keep a checkpoint every so many steps",
        minimum=1,
        unit="steps",
        rule="only the best and the last",
    )
    keep_last: int = option(
        1, "keep so many of the last checkpoints, beside the best and those above", minimum=1
    )
    initialization: str | None = option(
        None,
        "first weights: random, or with the odds of pairs of tokens as the text's counts give "
        "them, and attention that finds where the last two stood before",
        choices=("bigram", "random"),
        rule="bigram for a text of one's own; random for the stories, masked models, and one "
        "matrix for reading and predicting",
        of=("the text", "objective.name", "model.tie_word_embeddings"),
    )
    seed: int = option(0, "of the first weights and of the order of the text", minimum=0)

    @property
    def rate(self) -> float:
        """AdamW's rate where nothing more is known."""
        return RATE if self.learning_rate is None else self.learning_rate

    @property
    def matrix_rate(self) -> float:
        """Muon's rate where nothing more is known."""
        return MATRIX_RATE if self.matrix_learning_rate is None else self.matrix_learning_rate

    def __post_init__(self) -> None:
        """Refuse to be told the length twice."""
        if self.steps is not None and self.tokens is not None:
            raise SettingsError(
                "training.steps and training.tokens say the same thing; give one of them"
            )
        if self.minutes is not None and (self.steps or self.tokens or self.pace):
            raise SettingsError(
                "training.minutes says how long to train, and so do training.steps, .tokens and "
                ".pace; give one of them"
            )
