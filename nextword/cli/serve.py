"""Command line: serving - an endpoint as OpenAI's."""

from typing import Annotated, Any

from cyclopts import Parameter

from nextword.cli.program import SERVE, app, say, takes
from nextword.serve.options import ServeSettings


@app.command(group=SERVE)
@takes((), prefix=False, own={"serve": ServeSettings})
def serve(
    *runs: Annotated[
        str, Parameter(help="runs' names or paths, RUN@500, latest, or any model folders")
    ],
    device: Annotated[str, Parameter(help="where to compute: auto, cpu, cuda or mps")] = "auto",
    **options: Any,
) -> None:
    """Answer programs that speak to OpenAI's endpoints: completions, chat, exact probabilities."""
    from nextword.serve.start import listen, settings_from

    given = {path.partition(".")[2]: value for path, value in options.items()}
    listen(runs or ("latest",), settings_from(given), device=device, say=say)
