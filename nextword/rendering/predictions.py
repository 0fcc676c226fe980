"""Predictions, evaluations and lists of runs, as text for a terminal."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from nextword.corpus.tally import describe_reading
from nextword.explanation.previews import Floor
from nextword.loss.bits import bits
from nextword.prediction.candidates import Prediction
from nextword.prediction.evaluate import Evaluation
from nextword.prediction.masked import MASK, Filled, Pseudo
from nextword.rendering.formatting import one_line, quoted, tail
from nextword.rendering.training import describe_floor

BAR_WIDTH = 24
OWN = "the run's own hold-out"


def describe_prediction(prediction: Prediction) -> str:
    """Draw the candidates as a table with bars."""
    lines = [
        f"after {quoted(prediction.prompt)}" if prediction.prompt else "at the beginning of a text",
        "",
    ]
    lines.append(f"{'piece':<18}{'id':>7}{'logit':>9}{'P':>9}")
    for candidate in prediction.candidates:
        bar = "█" * round(BAR_WIDTH * candidate.probability)
        numbers = f"{candidate.id:>7}{candidate.logit:>9.2f}{candidate.probability:>9.4f}"
        lines.append(f"{quoted(candidate.piece):<18}{numbers}  {bar}")
    lines.append(f"{'all others':<18}{'':>16}{prediction.rest:>9.4f}")
    return "\n".join(lines)


def describe_full_evaluation(scores: Evaluation, name: str, floor: Floor | None) -> str:
    """Lay out every figure of an evaluation, and what of the files is not in them."""
    laid_out = _describe_figures(scores, name, floor)
    noticed = describe_reading(scores.reading)
    return f"{laid_out}\n\nnot read so      {noticed}" if noticed else laid_out


def _describe_figures(scores: Evaluation, name: str, floor: Floor | None) -> str:
    values = scores.as_dict()
    per_byte = values["bits_per_byte"]
    if scores.at_hidden:
        return "\n".join(
            [
                f"text            {name}: {scores.documents:,} documents, of which "
                f"{scores.tokens:,} tokens were hidden",
                f"loss            {values['nats_per_token']:.4f} nats a hidden token = "
                f"{values['bits_per_token']:.4f} bits",
                f"right at once   {values['top1_accuracy']:.1%} (among the five likeliest "
                f"{values['top5_accuracy']:.1%})",
                f"not given       bits per byte and perplexity: {scores.withheld}",
            ]
        )
    lines = [
        f"text            {name}: {scores.documents:,} documents, {scores.tokens:,} tokens",
        f"loss            {values['nats_per_token']:.4f} nats/token = "
        f"{values['bits_per_token']:.4f} bits/token",
        f"bits per byte   {per_byte:.4f}"
        if per_byte is not None
        else f"bits per byte   withheld: {scores.withheld}",
        f"perplexity      {values['perplexity']:.2f}",
        f"right at once   {values['top1_accuracy']:.1%} (among the five likeliest "
        f"{values['top5_accuracy']:.1%})",
        "",
        "loss by context length",
    ]
    previous = -1
    for upto, (nats, count) in sorted(scores.by_context.items()):
        label = f"{upto}" if upto - previous == 1 else f"{previous + 1}–{upto}"
        lines.append(f"  {label:>12} pieces read  {nats / count:8.4f} nats  ({count:,} tokens)")
        previous = upto
    if floor is not None:
        lines += ["", describe_floor(floor, scores.nats_per_token)]
    return "\n".join(lines)


def describe_pseudo(scores: Pseudo, name: str) -> str:
    """Give a masked model's pseudo-log-likelihood, and say what it is not."""
    values = scores.as_dict()
    per_byte = values["pseudo_bits_per_byte"]
    lines = [
        f"text                    {name or OWN}: {scores.documents:,} "
        f"documents, {scores.tokens:,} tokens, each hidden in turn",
        f"pseudo-log-likelihood   {values['pseudo_log_likelihood']:,.2f} nats, "
        f"{-values['pseudo_nats_per_token']:.4f} a token",
    ]
    if per_byte is not None:
        lines.append(f"                        {per_byte:.4f} pseudo-bits a byte")
    lines.append(
        "Not to be set beside bits per byte: each token was guessed with all others in sight, "
        "those after it too."
    )
    return "\n".join(lines)


def describe_filled(place: Filled) -> str:
    """List what may stand at one hidden place."""
    shown = f"{tail(place.before, 40)}{MASK}{place.after[:40]}"
    lines = [f"hidden in: {shown}", f"{'logit':>9} {'probability':>12} {'id':>7}  piece"]
    lines += [
        f"{one.logit:9.3f} {one.probability:12.6f} {one.id:7d}  {quoted(one.piece)}"
        for one in place.candidates
    ]
    lines.append(f"{'':9} {place.rest:12.6f}          all others")
    return "\n".join(lines)


def describe_runs(rows: Sequence[Mapping[str, Any]]) -> str:
    """List runs as a table."""
    lines = [f"{'run':<20}{'parameters':>12}{'steps':>9}{'loss':>10} age"]
    for row in rows:
        loss = (
            "–"
            if row["loss"] is None
            else f"{row['loss']:.4g}"
            if row["loss"] >= 1000
            else f"{row['loss']:.4f}"
        )
        parameters = "damaged" if row["parameters"] is None else f"{row['parameters']:,}"
        lines.append(f"{row['name']:<20}{parameters:>12}{row['steps']:>9,} {loss:>9} {row['age']}")
    return "\n".join(lines)


def describe_comparison(rows: Sequence[Mapping[str, Any]], sentence: str, depth: int) -> str:
    """Draw vocabularies side by side, and one sentence in the pieces of each."""
    lines = [
        "                      bytes a    words   unknown  embedding's   seconds",
        "kind       entries      token    whole    tokens     share of  to learn",
        f"                                                 depth {depth:>2}",
    ]
    lines += [
        f"{row['kind']:<10}{row['entries']:>8,}{row['bytes_per_token']:>11.2f}"
        f"{row['words_whole']:>9.1%}{row['unknown']:>10.2%}{row['embedding_share']:>13.1%}"
        f"{row['seconds']:>10.2f}"
        for row in rows
    ]
    lines += ["", quoted(sentence)]
    shown = [
        f"{row['kind']:<10}{row['entries']:>8,}  {len(row['pieces']):>3} pieces  "
        + one_line("|".join(row["pieces"]), 90)
        for row in rows
    ]
    return "\n".join([*lines, *shown])


def describe_choice(text: str, id_: int, logit: float, probability: float) -> str:
    """Show one token as it was chosen: logit → probability → id → piece."""
    surprise = bits(-math.log(max(probability, 1e-300)))
    odds = f"P {probability:.4f} ({surprise:.2f} bits)"
    return f"logit {logit:7.2f} → {odds} → id {id_} → {quoted(text)}"
