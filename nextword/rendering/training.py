"""What a training run says before, during and after, as text for a terminal."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nextword.corpus.tally import describe_reading
from nextword.explanation.previews import Floor, Preview
from nextword.model.shape import Shape
from nextword.prediction.evaluate import Evaluation
from nextword.rendering.formatting import argument, one_line, quoted, tail
from nextword.training.checkpoint import Checkpoint
from nextword.training.loop import Plan
from nextword.training.saver import Saver

WORKED_EXAMPLE = "We are all humans born to"


def describe_start(
    facts: Mapping[str, Any],
    cache: Path,
    shape: Shape,
    plan: Plan,
    machine: str,
    run: Path,
    begins: str = "",
    soft: float = 0.0,
    dropout: float = 0.0,
    teachers: int = 0,
) -> str:
    """Say what will be trained on what, and with what it begins, before it does."""
    train = facts["train_tokens"]
    lines = [
        describe_text(facts, cache),
        *describe_shares(facts, plan.steps * plan.read * plan.context),
        f"network     {shape.num_hidden_layers} layers, {shape.hidden_size} wide, context "
        f"{shape.context}: "
        f"{shape.parameters():,} parameters, {shape.flops_per_token() / 1e6:.1f} MFLOP a token",
        *([f"            begins with {begins}"] if begins else []),
        f"training    {plan.steps:,} steps of {plan.batch_tokens:,} tokens "
        f"({plan.steps * plan.read * plan.context / train:.1f} times the text) on {machine}",
        *(
            [
                f"            of a step's {plan.rows:,} rows counting writes {plan.written:,}, "
                "like the text"
            ]
            if plan.written
            else []
        ),
        *(
            [
                f"            at first {soft:.0%} of each target is what "
                f"{_who_expects(teachers)} there"
            ]
            if soft
            else []
        ),
        *(
            [
                f"            {dropout:.0%} of the channels of what a layer adds are left out, "
                "others in each row (dropout)"
            ]
            if dropout
            else []
        ),
        f"run         {run}",
    ]
    return "\n".join(lines)


def _who_expects(teachers: int) -> str:
    if not teachers:
        return "counting the rest of the text expects"
    return "its teacher expects" if teachers == 1 else f"its {teachers} teachers expect together"


def describe_text(facts: Mapping[str, Any], folder: Path) -> str:
    """Say what a prepared text is, and what of it is not as one would expect."""
    train, holdout = facts["train_tokens"], facts["holdout_tokens"]
    size = f", {facts['bytes']:,} bytes" if facts["bytes"] else ""
    lines = [
        f"text        {facts['corpus']}: {facts['documents']:,} documents{size}; "
        f"{train:,} tokens to learn from, {holdout:,} held out"
    ]
    reading = facts.get("reading") or {}
    if facts["duplicate_documents"] is not None:
        first = f" (first: {reading['repeated']['first']})" if "repeated" in reading else ""
        lines.append(
            f"            {facts['duplicate_documents']:,} documents repeat another exactly"
            f"{first}; none stands on both sides"
        )
    if noticed := describe_reading(reading, beside=("repeated",)):
        lines.append(f"            of {reading['records']:,} records, {noticed}")
    if facts["unknown_tokens"]:
        share = facts["unknown_tokens"] / (train + holdout)
        lines.append(
            f"            {facts['unknown_tokens']:,} tokens ({share:.2%}) are text that the "
            "vocabulary does not hold"
        )
    if facts.get("bits_withheld"):
        lines.append(f"            bits per byte are withheld: {facts['bits_withheld']}")
    lines.append(
        f"vocabulary  {facts['entries']:,} entries ({facts['vocabulary']}); prepared in {folder}"
    )
    asked = facts.get("entries_asked")
    if asked is not None and asked != facts["entries"]:
        lines.append(
            f"            {asked:,} entries were asked for; this kind and this text give "
            f"{facts['entries']:,}"
        )
    if len(scripts := facts.get("scripts") or {}) > 1:
        told = ", ".join(f"{script} {value:.2f}" for script, value in scripts.items())
        lines.append(f"            bytes a token by script: {told}")
    return "\n".join(lines)


def describe_shares(facts: Mapping[str, Any], tokens: int) -> list[str]:
    """Say how often each text of a mixture will be read."""
    portions = facts.get("portions") or []
    total = sum(portion["weight"] for portion in portions)
    return [
        f"{'mixture' if not number else '':<12}{portion['name']}: "
        f"{portion['weight'] / total:.1%} of the tokens, "
        f"{tokens * portion['weight'] / total / portion['train_tokens']:.2f} times its "
        f"{portion['train_tokens']:,} tokens"
        for number, portion in enumerate(portions)
    ]


def describe_evaluation(step: int, scores: Evaluation, sample: str, look: Preview | None) -> str:
    """Say how the model does at one moment of training."""
    lines = [f"step {step:,}: hold-out {describe_scores(scores)}"]
    does = "it fills in" if scores.at_hidden else "it writes"
    lines.append(f"  {does}: {one_line(sample, 160)}")
    if look is not None:
        lines.append(
            f"  after {quoted(tail(look.context, 60))}"
            f"{', and with what follows,' if scores.at_hidden else ''} it expected "
            f"{quoted(look.expected)} "
            f"({look.expected_probability:.0%}); the text says {quoted(look.came)} "
            f"({look.probability:.1%}, a mistake of "
            f"{-math.log(max(look.probability, 1e-300)):.2f} nats)"
        )
    return "\n".join(lines)


def describe_counting(scores: Evaluation, counted: Mapping[str, float]) -> str:
    """Say how far a loss is from what counting needs for the same tokens.

    Args:
        scores: of the model.
        counted: nats a token by the ruler's names of counting models, the simplest first.
    """
    loss, unit, factor = scores.nats_per_token, "nats/token", 1.0
    if scores.num_bytes:
        unit, factor = "bits/byte", scores.tokens / math.log(2) / scores.num_bytes
    name, needs = min(counted.items(), key=lambda one: one[1])
    if loss < needs:
        return (
            f"it predicts better than counting: {1 - loss / needs:.1%} less than the {name}'s "
            f"{needs * factor:.3f} {unit} there"
        )
    passed = [known for known, value in counted.items() if loss < value]
    knows = f"it has passed the {passed[-1]}; " if passed else ""
    return (
        f"{knows}counting (the {name}) needs {needs * factor:.3f} {unit} there, "
        f"{1 - needs / loss:.1%} less than it does"
    )


def describe_by_heart(best: Checkpoint) -> str:
    """Say that a run begins to learn by heart, and what is done about it."""
    return (
        f"it begins to learn the text by heart: held-out text was less of a surprise at step "
        f"{best.step:,}, which is kept"
    )


def describe_saving(saver: Saver[Any]) -> str:
    """Say what saving took, of one checkpoint at least."""
    each = saver.lost / saver.saves
    return (
        f"checkpoints {saver.saves} saved, {saver.bytes / saver.saves / 1e6:,.1f} MB each; "
        f"training waited {each:.2f} s for each, {saver.lost:.2f} of the {saver.taken:.2f} s "
        "that took"
    )


def describe_fit(plan: Plan) -> str:
    """Say how a step is made to fit into the memory that is free."""
    second = {
        "none": "",
        "selective": ", and computes a second time all but the products and attention",
        "full": ", and computes each layer a second time",
    }
    return (
        f"memory      a step holds {plan.micro_rows:,} of its {plan.rows:,} rows at once"
        f"{second[plan.recompute]}; it learns the same, and takes longer"
    )


OTHER_TEXT_HELPS = 50_000
"""Bytes of a text up to which it helps to begin with a model of another (EXPERIMENTS.md)."""
LARGER_HELPS = 60_000
"""Bytes of a text from which on a run's own curve said what a third layer brought."""
LARGER_IS_WORTH = 0.004
"""Expected gain from which on it is offered: less is what seeds differ by."""


def describe_what_helps(
    doubling: float,
    layer: float | None,
    *,
    paths: Sequence[str],
    num_bytes: int | None,
    layers: int,
    seconds: float,
    has_begun: bool = False,
    teacher: str | None = None,
) -> str:
    """Say what would make a model of one's own text better, with the command for it.

    Args:
        doubling: share that counting gained from the second half of the text.
        layer: share that one more layer should bring, by the run's own curve; None where there is
            no such curve.
        paths: of the text.
        num_bytes: of the text.
        layers: of the network.
        seconds: training took.
        has_begun: whether it began with another model's weights.
        teacher: the run, where another one could learn from it.
    """
    more = (
        f"More text like it: twice as much would bring about {doubling:.0%} (so much counting has "
        "gained from the second half)."
    )
    if doubling < 0.005:
        more = "More text of this kind would bring nothing: counting gained none from half of it."
    text = " ".join(map(argument, paths)) or "…"
    if layers > 2:
        rest = "More layers than three have brought 1 % at most on texts of 300 kB and a megabyte."
    elif num_bytes is not None and num_bytes < LARGER_HELPS:
        rest = "A third layer has brought 0 to 5 % on texts this small: --model.depth 3."
    elif layer is None:
        rest = "Whether a larger network would help this curve does not say."
    elif layer < LARGER_IS_WORTH:
        rest = (
            "A larger network or more time would bring little: the last quarter of the steps "
            "brought hardly anything."
        )
    else:
        minutes = max(math.ceil(3 * seconds / 60), 1)
        rest = (
            f"A larger network: by what the last quarter of the steps brought, one more layer "
            f"would bring about {layer:.1%}, in two to three times the time "
            f"(nextword train {text} --minutes {minutes})."
        )
    if teacher is not None:
        rest += (
            " Another training that also learns what this model expects (distillation) has brought "
            f"1 to 3 % on texts of 100 kB (nextword train {text} --training.teacher "
            f"{argument(teacher)})."
        )
    if not has_begun and num_bytes is not None and num_bytes < OTHER_TEXT_HELPS:
        rest += (
            " Other text in the same language, learned first, has helped texts this small: "
            f"nextword train OTHER --name first, then nextword train {text} --from first"
        )
    return f"What would make it better? {more} {rest}"


def describe_scores(scores: Evaluation) -> str:
    """Give loss, bits per byte and perplexity in one line."""
    values = scores.as_dict()
    if scores.at_hidden:
        return (
            f"{values['nats_per_token']:.4f} nats a hidden token, "
            f"{values['top1_accuracy']:.1%} of them named at once"
        )
    per_byte = values["bits_per_byte"]
    words = f", {per_byte:.3f} bits/byte" if per_byte is not None else ""
    return (
        f"{values['nats_per_token']:.4f} nats/token{words}, perplexity {values['perplexity']:.2f}"
    )


def describe_floor(floor: Floor, loss: float) -> str:
    """Say how near the loss has come to the lowest possible."""
    nats, share = floor.excess(loss)
    return (
        "The lowest loss any model can reach on this text is known exactly: "
        f"{floor.nats_per_token:.4f} nats/token.\n"
        f"This one is {nats:.4f} nats above it: {share:.1%}."
    )


def describe_end(
    run: Path,
    scores: Evaluation,
    seconds: float,
    entries: int,
    floor: Floor | None,
    best: tuple[int, int] | None,
    beginning: str | None = None,
) -> str:
    """Sum a run up in plain words, with the next commands to try.

    Args:
        run: its folder.
        scores: of the checkpoint that is kept for use, on the whole hold-out.
        seconds: training took.
        entries: of the vocabulary.
        floor: the lowest loss possible, where known.
        best: steps of the best and the last checkpoint where over-fitting was noticed.
        beginning: of a text to ask about; default: one that suits the built-in stories.
    """
    loss = scores.nats_per_token
    where = "hidden tokens of text" if scores.at_hidden else "tokens"
    lines = [
        "",
        f"Done in {seconds:.0f} s. On {scores.tokens:,} {where} it never saw, "
        f"{describe_scores(scores)}.",
        f"Who guesses blindly among {entries:,} pieces needs {math.log(entries):.2f} "
        f"nats; it is now as unsure as among {math.exp(loss):.1f}.",
    ]
    if floor is not None:
        lines.append(describe_floor(floor, loss))
    if best is not None:
        lines.append(
            f"It began to learn the text by heart: the hold-out was best at step {best[0]:,} and "
            f"worse at {best[1]:,}. "
            "The best checkpoint is kept, used and judged here; more text or fewer "
            "--training.steps would help."
        )
    return "\n".join([*lines, "", "Try next:", *_try_next(run.name, scores.at_hidden, beginning)])


def _try_next(run: str, at_hidden: bool, beginning: str | None) -> list[str]:
    """Name the next commands, as a shell reads them.

    Args:
        run: its name.
        at_hidden: whether it names hidden tokens.
        beginning: of a text as the run's own are; None for the built-in stories.
    """
    name = argument(run)
    if beginning is None:
        prompt, asked = ' "Long ago"', WORKED_EXAMPLE
    else:
        prompt, asked = "", beginning
    ask = [
        f"  nextword generate {name}{prompt}",
        f"  nextword predict {name} {argument(asked)}",
        f"  nextword explain {name} {argument(asked)}",
    ]
    if at_hidden:
        ask[:2] = [f"  nextword fill {name} {argument(_with_a_gap(asked))}"]
    return [*ask, f"  nextword report {name}"]


def _with_a_gap(text: str) -> str:
    """Hide a word in the middle; of a text without words, what would come next."""
    if text == WORKED_EXAMPLE:
        return f"{WORKED_EXAMPLE} [MASK] mistakes"
    words = text.split(" ")
    if len(words) < 3:
        return f"{text} [MASK]"
    words[len(words) // 2] = "[MASK]"
    return " ".join(words)
