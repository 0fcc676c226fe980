"""Ten short stops through the ideas, with the numbers of one run; for the terminal and the docs."""

import math
from collections.abc import Callable
from typing import NamedTuple

from nextword.explanation.render.curve import log_curve_text
from nextword.explanation.render.replay import chosen_moments
from nextword.explanation.render.trace import summary
from nextword.explanation.render.words import chance, figure, quoted, table
from nextword.explanation.tour import WORKED_PROMPT, TourFacts
from nextword.loss.bits import bits

SENTENCE = "We are all humans born to make mistakes"
REGRESSION_GUESS, REGRESSION_TRUTH = 20.0, 17.0


class Stop(NamedTuple):
    """One idea: words, then numbers, then what they mean, then something to try."""

    anchor: str
    title: str
    words: str
    shown: list[str]
    """Lines laid out in columns."""
    meaning: str
    try_it: str


def describe_stop(stop: Stop, number: int, count: int, width: int = 96) -> str:
    """Draw one stop for a terminal."""
    rule = f"── {number} of {count} · {stop.title} "
    lines = [rule + "─" * max(width - len(rule), 0), ""]
    lines += _wrapped(stop.words, width)
    lines += ["", *(f"    {line}".rstrip() for line in stop.shown), ""]
    lines += _wrapped(stop.meaning, width)
    return "\n".join([*lines, "", f"Try: {stop.try_it}"])


def _wrapped(text: str, width: int) -> list[str]:
    from textwrap import wrap

    return wrap(text, width, break_long_words=False, break_on_hyphens=False)


def stop_markdown(stop: Stop, number: int) -> str:
    """Draw one stop as a page of the docs."""
    shown = "\n".join(line.rstrip() for line in stop.shown)
    return (
        f"# {number}. {stop.title}\n\n{stop.words}\n\n```text\n{shown}\n```\n\n{stop.meaning}\n\n"
        f"Try it:\n\n```console\n$ {stop.try_it}\n```\n"
    )


def stops(facts: TourFacts) -> list[Stop]:
    """Return the ten stops, in the order of the ideas."""
    draw: list[Callable[[TourFacts], Stop]] = [
        _targets, _contexts, _losses, _vocabulary, _softmax, _log, _average, _bits, _step, _writing
    ]  # fmt: skip
    return [one(facts) for one in draw]


def _targets(facts: TourFacts) -> Stop:
    pieces = [position.piece for position in facts.trace.positions]
    rows = [
        [quoted("".join(pieces[:place])), "→", quoted(pieces[place])]
        for place in range(1, len(pieces))
    ]
    return Stop(
        "targets",
        "The text gives the answers itself",
        "To teach a program to tell friendly letters from angry ones, someone must first read "
        "letters and write the answer beside each: a label. That is supervised learning. To teach "
        "it to go on with a text, nobody has to write anything: cover what comes next, ask, and "
        "uncover it. What comes next is called the target, and learning from it is called "
        "self-supervised. One sentence holds all these lessons:",
        table(["what was read", "", "target"], rows, frozenset({0, 1, 2})),
        "A text of n pieces gives n such lessons, the first asked with nothing read."
        + (
            f" {facts.run} had {facts.train_tokens:,} of them to learn from, and not one was "
            "labeled by a person."
            if facts.train_tokens
            else ""
        ),
        'nextword targets "A sentence of your own"',
    )


def _contexts(facts: TourFacts) -> Stop:
    if facts.scores is None:
        rows = [
            [str(position.seen), quoted(position.piece), chance(position.probability)]
            for position in facts.trace.positions
        ]
        shown = table(["pieces read", "target", "P(target)"], rows, frozenset({1}))
        where = "in this one sentence"
    else:
        rows, before = [], 0
        for upto, (nats, count) in sorted(facts.scores.by_context.items()):
            label = f"{upto - 1}" if upto - before == 1 else f"{before}–{upto - 1}"
            rows.append([label, f"{count:,}", f"{nats / count:.3f}"])
            before = upto
        shown = table(["pieces read", "times asked", "average mistake"], rows, frozenset())
        where = f"in {facts.scores.tokens:,} places of text that it never saw"
    return Stop(
        "contexts",
        "Every length of context is a lesson",
        "What was read before the target is its context. The model must answer after one piece, "
        "after two, after a hundred: all in one reading of the text, and it may never look "
        f"ahead. Here is {facts.run}, {where}, by how much it had read. (How the mistake is "
        "measured is the next stop; smaller is better.)",
        shown,
        "More context mostly helps, but not always evenly: some places of a text are simply harder "
        "than others, such as the word that names a thing for the first time.",
        f"nextword evaluate {facts.run}",
    )


def _losses(facts: TourFacts) -> Stop:
    taken = facts.audit
    error = REGRESSION_GUESS - REGRESSION_TRUTH
    rows = [
        [
            "a number",
            f"guessed {REGRESSION_GUESS:g}, came {REGRESSION_TRUTH:g}",
            f"({REGRESSION_GUESS:g} − {REGRESSION_TRUTH:g})² = {error**2:g}",
            "squared error",
        ],
        [
            "one of many",
            f"P({quoted(taken.target.piece)}) was {chance(taken.target.probability)}",
            f"−ln {chance(taken.target.probability)} = {taken.nats:.4f}",
            "cross-entropy",
        ],
    ]
    return Stop(
        "loss",
        "A loss measures one mistake",
        "A loss is a number that is 0 for a perfect answer and grows with the mistake. Which one, "
        "depends on the question. Asked for a number, such as tomorrow's temperature, one squares "
        "the distance: squared error. Asked which of many things comes, there is no distance "
        "between them; one looks at the probability the model gave to what really came, and takes "
        "minus its logarithm: cross-entropy.",
        table(
            ["the question", "the answer", "the loss", "its name"], rows, frozenset({0, 1, 2, 3})
        ),
        f"After {quoted(WORKED_PROMPT)} there are {facts.entries:,} possible answers, none of them "
        "nearer to another. Squared error on probabilities would never exceed 2, however sure and "
        "wrong the model was; cross-entropy has no upper end, and pulls hardest where the mistake "
        "is greatest.",
        f'nextword audit {facts.run} "{SENTENCE}"',
    )


def _vocabulary(facts: TourFacts) -> Stop:
    unseen = facts.unseen
    shown = table(
        ["piece", "id"],
        [[quoted(piece), str(id_)] for piece, id_ in facts.audit.pieces],
        frozenset({0}),
    )
    shown += ["", f"{unseen.word}: " + " | ".join(quoted(piece) for piece in unseen.pieces)]
    if unseen.unknown:
        end = (
            f"The word {quoted(unseen.word)} is not among them and cannot be put together from "
            "them: the model reads it as one sign for whatever is unknown, and can never say it."
        )
    else:
        end = (
            f"The word {quoted(unseen.word)} is no piece: it was never seen often enough. It can "
            f"only be spelled in {len(unseen.pieces)} parts, and the probability that {facts.run} "
            f"would ever do so after {quoted(WORKED_PROMPT)} is {chance(unseen.probability)} "
            f"({_zeros(unseen.probability)}): as good as never. What the text did not teach, it "
            "cannot say."
        )
    return Stop(
        "vocabulary",
        "All it can read or say is its vocabulary",
        f"The model knows neither letters nor meanings, only a fixed list of {facts.entries:,} "
        "pieces, its vocabulary: words, parts of words, signs. Each has a number, its id. A text "
        "is cut into pieces and becomes a list of numbers:",
        shown,
        end,
        f'nextword vocabulary {facts.run} "A sentence of your own"',
    )


def _zeros(probability: float) -> str:
    """Say in words how small a number is."""
    places = -math.floor(math.log10(max(probability, 1e-300)))
    return f"its first digit other than 0 is the {places}th after the point"


def _softmax(facts: TourFacts) -> Stop:
    candidates, taken = facts.prediction.candidates, facts.audit
    rows = [
        [
            quoted(candidate.piece),
            f"{candidate.logit:.4f}",
            figure(math.exp(candidate.logit)) if candidate.logit < 300 else "very large",
            chance(candidate.probability),
            "█" * round(30 * candidate.probability),
        ]
        for candidate in candidates
    ]
    rows.append(["all others", "", "", chance(facts.prediction.rest), ""])
    first, second = candidates[0], candidates[1]
    return Stop(
        "softmax",
        "From scores to probabilities: softmax",
        f"Having read {quoted(WORKED_PROMPT)}, the model gives each of its {facts.entries:,} "
        "pieces a score, the logit: any number, also a negative one. Softmax turns scores into "
        "probabilities: raise e (2.718…) to each score, which makes it positive, and divide by the "
        "sum of all, so that together they make 1.",
        table(["piece", "logit", "e^logit", "P", ""], rows, frozenset({0, 4})),
        f"The order stays: a higher score is a higher probability. Only differences count: "
        f"{quoted(first.piece)} is e^({first.logit:.4f} − {second.logit:.4f}) = "
        f"{figure(math.exp(first.logit - second.logit))} times as likely as "
        f"{quoted(second.piece)}. And none is ever 0: after {quoted(taken.context)} even "
        f"{quoted(taken.least.piece)} keeps "
        + (
            f"{taken.least.probability:.1e}."
            if taken.least.probability
            else f"about 10^{taken.least_log10:.0f}."
        ),
        f'nextword predict {facts.run} "{WORKED_PROMPT}"',
    )


def _log(facts: TourFacts) -> Stop:
    taken = facts.audit
    return Stop(
        "log",
        "Minus the logarithm: how surprised it was",
        f"The text goes on with {quoted(taken.target.piece)}. The model had given it the "
        f"probability p = {chance(taken.target.probability)}; the mistake is −ln p = "
        f"{taken.nats:.4f}. (ln is the logarithm that undoes e to the power of: ln of 1 is 0.) "
        "The curve shows −ln p for every p, and the dot where this prediction stands:",
        log_curve_text(taken.target.probability),
        "Certain and right, p = 1, costs nothing. Half as likely always costs 0.69 more. Near 0 "
        "the curve shoots up: to be sure and wrong is what a model must learn to avoid first of "
        "all. The unit is called nat with ln, and bit with the logarithm to the base 2: "
        f"{taken.nats:.4f} nats = {taken.bits:.4f} bits.",
        f'nextword explain {facts.run} "{SENTENCE}"',
    )


def _average(facts: TourFacts) -> Stop:
    judged = facts.trace
    rows = [
        [quoted(position.piece), chance(position.probability), f"{position.nats:.4f}"]
        for position in judged.positions
    ]
    first = [line for line in summary(judged) if not line.startswith("per ")]
    return Stop(
        "average",
        "The loss is the average",
        "One prediction may be lucky. So the mistakes of all pieces are added up and divided by "
        "their number: that is the loss of a text, and the one number that training lowers.",
        [*table(["piece", "P", "−ln P"], rows, frozenset({0})), "", *first],
        "Adding logarithms is multiplying probabilities, written so that no computer runs out of "
        "digits. And the average can be undone: e to the power of it says among how many equally "
        "likely pieces one would be as unsure.",
        f'nextword explain {facts.run} "A sentence of your own"',
    )


def _bits(facts: TourFacts) -> Stop:
    judged = facts.trace
    total = bits(judged.nats)
    rows = [
        ["the plain file", f"{judged.num_bytes} bytes × 8", f"{8 * judged.num_bytes}"],
        [
            "blind guessing",
            f"{len(judged.positions)} × log2 {facts.entries:,}",
            f"{len(judged.positions) * math.log2(facts.entries):.1f}",
        ],
        [facts.run, "sum of −log2 P", f"{total:.1f}"],
    ]
    return Stop(
        "bits",
        "The loss is a number of bits",
        "Whoever knows what is likely can write it down briefly: a short sign for what is likely, "
        "a long one for what is not. The best length is exactly −log2 P bits. So the loss is also "
        "the average number of bits it takes to write a piece down. The worked example takes:",
        table(["written by", "how", "bits"], rows, frozenset({0, 1})),
        "This is no figure of speech: nextword packs a real file with the model's probabilities, "
        "into as many bytes as the loss says, and unpacks it again without one letter lost.",
        f"nextword compress {facts.run} FILE -o FILE.nw",
    )


def _step(facts: TourFacts) -> Stop:
    step, taken = facts.audit.step, facts.audit
    shown = [
        f"loss of the sentence before     {step.before:.6f}",
        f"change that the slope predicts  {step.predicted:+.6f}",
        f"change that came                {step.change:+.6f}",
        f"P({quoted(taken.target.piece)})  {chance(step.probability_before)} → "
        f"{chance(step.probability_after)}",
    ]
    meaning = "Training is this, over and over, on ever other pieces of text."
    if facts.replay is not None:
        replay, place = facts.replay, taken.place - 1
        chosen = chosen_moments(replay.steps, 6)
        if place < len(replay.pins[0].ids) and replay.pins[0].text == taken.text:
            told = ", ".join(
                f"{chance(replay.judged[moment][0].probabilities[place])} at step "
                f"{replay.steps[moment]:,}"
                for moment in chosen
            )
            meaning += f" In this run P({quoted(taken.target.piece)}) was {told}."
    return Stop(
        "step",
        "A step of training",
        f"The model is {step.weights:,} numbers, its weights. For each one can compute in which "
        "direction, and how strongly, it changes the loss: the gradient. On the logits it is "
        "simply probability minus answer: the right piece is pushed up by "
        f"{chance(-taken.target.gradient)}, all others are pushed down. One step of gradient "
        "descent moves every weight a little against its gradient. On a copy, with this one "
        "sentence:",
        shown,
        meaning,
        f"nextword replay {facts.run}",
    )


def _writing(facts: TourFacts) -> Stop:
    rows = [
        [
            quoted(piece.text),
            str(piece.id),
            chance(piece.probability),
            ""
            if piece.likeliest.id == piece.id
            else f"(likeliest {quoted(piece.likeliest.piece)})",
        ]
        for piece in facts.written
    ]
    text = "".join(piece.text for piece in facts.written)
    return Stop(
        "writing",
        "Writing, one piece at a time",
        "A model that predicts can write: draw a piece by the probabilities, look its id up in the "
        "vocabulary, put it behind the text, and ask again with the longer text.",
        [*table(["piece", "id", "P", ""], rows, frozenset({0, 3})), "", quoted(text)],
        "It does not plan ahead and does not know what it will say: each piece follows from what "
        "stands there already. That is the whole of it: predict the next word, again and again.",
        f"nextword generate {facts.run} --show",
    )
