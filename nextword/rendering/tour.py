"""The guided tour, stop by stop, with the numbers of one run; for the terminal and the docs."""

import math
from collections.abc import Callable

from nextword.explanation.tour import WORKED_PROMPT, TourFacts, WrittenPiece
from nextword.loss.bits import bits
from nextword.rendering.curve import log_curve_text
from nextword.rendering.formatting import chance, figure, quoted, table
from nextword.rendering.replay import chosen_moments
from nextword.rendering.tour_page import Stop
from nextword.rendering.trace import summary

SENTENCE = "We are all humans born to make mistakes"
REGRESSION_GUESS, REGRESSION_TRUTH = 20.0, 17.0


def stops(facts: TourFacts) -> list[Stop]:
    """Return the stops, in the order of the ideas."""
    draw: list[Callable[[TourFacts], Stop]] = [
        _targets, _contexts, _losses, _vocabulary, _softmax, _log, _average, _bits, _step, _writing,
        _labels,
    ]  # fmt: skip
    return [one(facts) for one in draw]


def _targets(facts: TourFacts) -> Stop:
    pieces = [position.piece for position in facts.trace.positions]
    rows = [
        [quoted("".join(pieces[:place])) if place else "(nothing)", "→", quoted(pieces[place])]
        for place in range(len(pieces))
    ]
    known = facts.train_tokens
    return Stop(
        "targets",
        "The text gives the answers itself",
        "To teach a program to tell friendly letters from angry ones, someone must first read "
        "letters and write the answer beside each: a label. That is supervised learning. To teach "
        "it to go on with a text, nobody has to write anything: cover what comes next, ask, and "
        "uncover it. What comes next is called the target, and learning from it is called "
        "self-supervised. One sentence holds all these lessons:",
        table(["what was read", "", "target"], rows, frozenset({0, 1, 2})),
        "What is in quotes is a piece, or several: a word or a part of one, with the space before "
        "it if there is one. A text of n pieces gives n lessons, and one more: an "
        "invisible last piece that says the text ends here is asked for, too. "
        f"{facts.run} is the model whose numbers you see on this tour"
        + (
            f"; it had {known:,} of them to learn from, and not one was labeled by a person."
            if known
            else "."
        ),
        'nextword targets "A sentence of your own"',
    )


def _contexts(facts: TourFacts) -> Stop:
    if facts.scores is None:
        rows = [
            [str(position.seen), quoted(position.piece), f"{position.nats:.3f}"]
            for position in facts.trace.positions
        ]
        shown = table(["pieces read", "target", "loss"], rows, frozenset({1}))
        where = "in this one sentence"
    else:
        rows, before = [], -1
        for upto, (nats, count) in sorted(facts.scores.by_context.items()):
            label = f"{upto}" if upto - before == 1 else f"{before + 1}–{upto}"
            rows.append([label, f"{count:,}", f"{nats / count:.3f}"])
            before = upto
        shown = table(["pieces read", "times asked", "average loss"], rows, frozenset())
        where = f"in {facts.scores.tokens:,} places of text that it never saw"
    return Stop(
        "contexts",
        "Every length of context is a lesson",
        "What was read before the target is its context. The model must answer with nothing read, "
        "after one piece, after two, after a hundred, and it may never look ahead. Here is "
        f"{facts.run}, {where}, by how much it had read. (The loss says how wrong it was, and less "
        "is better; the next stops show how it is measured.)",
        shown,
        "Having read more usually helps, but not in every row: some places of a text are easy to "
        "guess and others hard, such as the word that names a thing for the first time. (Lower "
        "rows cover more lengths; the longest are asked for less often each, for many texts end "
        "before.)",
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
        "A loss says how wrong an answer was",
        "A loss is a number that is 0 for a perfect answer and grows the more wrong the answer "
        "was. Which one, depends on the question. Asked for a number, such as tomorrow's "
        "temperature, one squares the distance: squared error. Asked which of many pieces comes, "
        "there is no distance between them. So the model does not answer with one piece but gives "
        "each a probability, a share of its belief between 0 and 1; P(x) is the share of x. The "
        "loss is taken from the share it had given to what really came: cross-entropy. (−ln, "
        "explained at stop 6, turns a share near 1 into a small loss and one near 0 into a large "
        "one.)",
        table(["the question", "the answer", "the loss", "its name"], rows, frozenset(range(4))),
        f"After {quoted(WORKED_PROMPT)} there are {facts.entries:,} possible answers, none of them "
        "nearer to another. One could square here too: the distance of each share from 1 for what "
        "came, from 0 for the others. But even the worst answer, all belief in one wrong piece, "
        "would cost only 1² + 1² = 2. Cross-entropy has no upper end: the surer and more wrong, "
        "the more there is to learn from it.",
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
        single = {"byte": "byte", "char": "character"}.get(facts.kind)
        why = (
            f"every piece of this vocabulary is a single {single}"
            if single
            else "the training text held it too rarely, or never"
        )
        end = (
            f"The word {quoted(unseen.word)} is no piece: {why}. It can only be put together "
            f"from {len(unseen.pieces)} parts, and the probability that {facts.run} would do so "
            f"after {quoted(WORKED_PROMPT)} is {chance(unseen.probability)}"
            f"{_point_moved(unseen.probability)}. What the training text did not teach, it will "
            "practically never say."
        )
    return Stop(
        "vocabulary",
        "All it can read or say is its vocabulary",
        f"The model knows no meanings, only a fixed list of {facts.entries:,} pieces, its "
        "vocabulary: words, parts of words, signs. Each has a number, its id. A text is cut into "
        "pieces and becomes a list of numbers:",
        shown,
        end,
        f'nextword vocabulary {facts.run} "A sentence of your own"',
    )


def _point_moved(probability: float) -> str:
    """Explain the way in which very small numbers are written."""
    written = chance(probability)
    if "e-" not in written or written.startswith("<"):
        return ""
    digits, power = written.split("e-")
    return f" (that is {digits} with the point moved {int(power)} places to the left)"


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
    least = taken.least.probability
    return Stop(
        "softmax",
        "From scores to probabilities: softmax",
        f"Having read {quoted(WORKED_PROMPT)}, the model gives each of its {facts.entries:,} "
        "pieces a score, the logit: any number, also a negative one. Softmax turns scores into "
        "probabilities. It raises a fixed number, e = 2.718…, to the power of each score (e^2 "
        "means e × e, and powers between whole numbers fill the gaps smoothly); the results "
        "are always above 0. Then it divides each by the sum of all, so that together they make 1 "
        "(the last digits shown are rounded):",
        table(["piece", "logit", "e^logit", "P", ""], rows, frozenset({0, 4})),
        "The order stays: a higher score is a higher probability. Only differences count: "
        f"{quoted(first.piece)} is e^({first.logit:.4f} − {second.logit:.4f}) = "
        f"{figure(math.exp(first.logit - second.logit))} times as likely as "
        f"{quoted(second.piece)}. And none is ever 0: after {quoted(taken.context)} even "
        f"{quoted(taken.least.piece)} keeps "
        + (f"{least:.1e}." if least else f"about 10^{taken.least_log10:.0f}."),
        f'nextword predict {facts.run} "{WORKED_PROMPT}"',
    )


def _log(facts: TourFacts) -> Stop:
    taken = facts.audit
    return Stop(
        "log",
        "Minus the logarithm: how surprised it was",
        f"The text goes on with {quoted(taken.target.piece)}. The model had given it the "
        f"probability p = {chance(taken.target.probability)}; its loss is −ln p = "
        f"{taken.nats:.4f}. ln, the logarithm, asks: to what power must e be raised to get this "
        "number? For numbers below 1 that power is negative, hence the minus. The curve shows −ln "
        "p for every p, and the dot where this prediction stands (to the left it goes on above the "
        "drawing):",
        log_curve_text(taken.target.probability),
        "Certain and right, p = 1, has no loss, for e^0 = 1. Half the probability always adds "
        "0.69. Near 0 the curve shoots up: to be sure and wrong is what a model learns to avoid "
        "first of all. The unit is called nat. With 2 in place of e (written log2) the same "
        f"surprise is counted in bits: {taken.nats:.4f} nats = {taken.bits:.4f} bits.",
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
        "The loss of a text is the average",
        "One prediction may be lucky. So the losses of all pieces are added up and divided by "
        "their number: that average is the loss of a text, and the one number that training "
        "lowers.",
        [*table(["piece", "P", "−ln P"], rows, frozenset({0})), "", *first],
        "Multiplied, probabilities soon become too small for a computer; their logarithms, added "
        "up, say the same and do not. And the average can be undone: e to the power of it says "
        "among how many equally likely pieces one would be as unsure. Near 1 means nearly sure."
        + _often(facts),
        f'nextword explain {facts.run} "A sentence of your own"',
    )


SURE = 0.99


def _often(facts: TourFacts) -> str:
    """Say what a share near 1 tells of the training text, where there is one."""
    sure = [p.probability for p in facts.trace.positions if p.probability > SURE]
    if not sure:
        return ""
    return (
        f" (A share such as {chance(max(sure))} says: in the training text, where such words "
        "stood, nearly always this piece followed.)"
    )


def _bits(facts: TourFacts) -> Stop:
    judged = facts.trace
    count = len(judged.positions)
    ways = [
        ("the plain file", f"{judged.num_bytes} bytes × 8", 8.0 * judged.num_bytes),
        ("blind guessing", f"{count} × log2 {facts.entries:,}", count * math.log2(facts.entries)),
        (facts.run, "sum of −log2 P", bits(judged.nats)),
    ]
    rows = [[name, how, f"{size:.1f}", f"{size / count:.2f}"] for name, how, size in ways]
    return Stop(
        "bits",
        "The loss is a number of bits",
        "A bit is one yes or no; a byte, one letter in a plain file, is 8 of them. Whoever knows "
        "what is likely can write it down briefly: a short sign for what is likely, a long one for "
        "what is not. The best length for a piece is −log2 P bits; fractions of bits add up over a "
        "text. So the loss is also the average number of bits it takes to write a piece down. The "
        "worked example takes:",
        table(["written by", "how", "bits", "bits a piece"], rows, frozenset({0, 1})),
        "This is no figure of speech: nextword packs a real file with the model's probabilities, "
        "into nearly as many bits as the losses add up to. The same model on the "
        "same machine unpacks it again without one letter lost.",
        f"nextword compress {facts.run} FILE -o FILE.nw",
    )


def _step(facts: TourFacts) -> Stop:
    step, taken = facts.audit.step, facts.audit
    shown = [
        f"loss of the sentence before     {step.before:.6f}",
        f"change that the slope predicts  {step.predicted:+.6f}",
        f"change that came                {step.change:+.6f}",
        f"P({quoted(taken.target.piece)}) went from {chance(step.probability_before)} to "
        f"{chance(step.probability_after)}",
    ]
    return Stop(
        "step",
        "A step of training",
        f"The model is {step.weights:,} numbers, its weights; from them it computes the scores. "
        "For every number one can compute how the loss would change if it rose a little: its "
        "gradient, the slope. For a score the gradient is simply P minus 1 for the right piece and "
        "P minus 0 for all others; training moves against it, so the right score is pushed up, "
        f"here with a strength of {chance(-taken.target.gradient)}, and the others down. It does "
        "so by moving every weight a little against its own gradient: one step of gradient "
        "descent. On a copy of the model, with this one sentence:",
        shown,
        "(The step was made just so long that the slope promises a hundredth of the loss.) "
        "Training is this, over and over, on other text at each step." + _risen(facts),
        f"nextword replay {facts.run}",
    )


def _risen(facts: TourFacts) -> str:
    """Say how the piece under audit was judged while the model learned, where that is known."""
    replay, taken = facts.replay, facts.audit
    if replay is None or replay.pins[0].text != taken.text:
        return ""
    told = ", ".join(
        f"{chance(replay.judged[moment][0].probabilities[taken.place - 1])} at step "
        f"{replay.steps[moment]:,}"
        for moment in chosen_moments(replay.steps, 6)
    )
    return (
        f" In the training that made {facts.run}, where each step read many texts at once, "
        f"P({quoted(taken.target.piece)}) was {told}. It does not only rise: other sentences ask "
        "for other answers."
    )


def _beside(piece: WrittenPiece) -> str:
    likeliest = piece.likeliest
    if likeliest.id == piece.id:
        return "the likeliest"
    return f"(likeliest: {quoted(likeliest.piece)} {chance(likeliest.probability)})"


def _writing(facts: TourFacts) -> Stop:
    rows = [
        [
            quoted(piece.text),
            str(piece.id),
            chance(piece.probability),
            _beside(piece),
        ]
        for piece in facts.written
    ]
    text = "".join(piece.text for piece in facts.written)
    return Stop(
        "writing",
        "Writing, one piece at a time",
        "A model that predicts can write. It draws an id as in a lottery in which each piece holds "
        "tickets by its probability, so the likeliest need not win; looks up the piece of that id "
        "in the vocabulary; puts it behind the text; and asks again with the longer text, until it "
        "draws the id that means: the text ends.",
        [*table(["piece", "id", "P", ""], rows, frozenset({0, 3})), "", quoted(text)],
        "It does not plan ahead and does not know what it will say: each piece follows from what "
        "stands there already. That is the whole of it: predict the next piece, again and again.",
        f"nextword generate {facts.run} --show",
    )


def _labels(facts: TourFacts) -> Stop:
    lesson, pieces = facts.labels, len(facts.trace.positions)
    first, second = lesson.learned[:2]
    rows = [
        [quoted(one.text), one.label, chance(one.probability), "" if one.is_right else "wrong"]
        for one in lesson.asked
    ]
    return Stop(
        "labels",
        "Labels: when a person prepares the answers",
        f"So far the text gave every answer itself: {quoted(SENTENCE)} gave {pieces} targets "
        "for nothing. For some questions no text holds the answer. Whom is a sentence about, a she "
        f"or a he? Somebody had to read {len(lesson.learned)} sentences and write a label beside "
        f"each: {quoted(first.text)} {first.label}, {quoted(second.text)} {second.label}, and so "
        "on. Learning from labels is called supervised. It works as before, only the list to "
        f"choose from is shorter: {len(lesson.names)} labels, not {facts.entries:,} pieces. Each "
        "gets a score, softmax makes probabilities of them, the loss is −ln of the right one's. "
        f"Here the model stayed as it was, and only {lesson.weights:,} numbers that make scores of "
        f"what it has read were learned. On the {len(lesson.learned)} the loss fell from "
        f"{lesson.before:.3f} (ln {len(lesson.names)}: no idea) to {lesson.after:.3f}. Then it was "
        "asked about other names, which nobody had labeled:",
        table(["sentence", "a person says", "P of that", ""], rows, frozenset({0, 1, 3})),
        f"{lesson.right} of {len(lesson.asked)} are right. What it knows of these names it can "
        "only have from text without labels, where each name kept its company. So a model is "
        "first trained on much text, which costs no one's time, and then taught from few labels. "
        "(Where the answer is a number, such as a price, the loss is the squared error.)",
        f"nextword finetune {facts.run} labels.csv",
    )
