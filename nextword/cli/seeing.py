"""Verbs that let one see how a model learns: explain, audit, replay, ruler, report, tour."""

import json
import os
import sys
from typing import Annotated

from cyclopts import Parameter

from nextword.cli.program import AsJson, Run, app, text_of, write

Text = Annotated[str, Parameter(help='the text, or "-" for standard input')]


@app.command
def explain(
    run: Run,
    text: Text,
    *,
    top: Annotated[int, Parameter(help="candidates to list at each place")] = 0,
    json_: AsJson = False,
) -> None:
    """Judge a text piece by piece: what came, how likely the model thought it, how large a mistake.

    Then the sum of the logs beside the product, the average, perplexity, and bits a byte.
    """
    from nextword import api
    from nextword.explanation.render.trace import describe_trace

    judged = api.load(run).explain(text_of(text), max(top, 1))
    if json_:
        write(json.dumps(judged.as_dict()))
    else:
        write(describe_trace(judged, top=top, color=_has_color()))


@app.command
def audit(
    run: Run,
    text: Text,
    *,
    token: Annotated[
        int | None,
        Parameter(help="which piece, counted from 1 (default: the one that surprised most)"),
    ] = None,
    top: Annotated[int, Parameter(help="of the likeliest pieces to show")] = 5,
    rate: Annotated[
        float | None,
        Parameter(help="of the step (default: such that the loss falls by about a hundredth)"),
    ] = None,
    json_: AsJson = False,
) -> None:
    """Take one prediction apart: pieces, logits, softmax, −log p, p − y, one step of training."""
    from nextword import api
    from nextword.explanation.render.audit import describe_audit

    taken = api.load(run).audit(text_of(text), token=token, top=max(top, 1), rate=rate)
    write(json.dumps(taken.as_dict()) if json_ else describe_audit(taken))


def _has_color() -> bool:
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ
