"""Command line: serving - an endpoint as OpenAI's, and the live page."""

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from nextword.base.errors import SettingsError
from nextword.cli.program import SERVE, app, say, takes
from nextword.serve.options import ServeSettings


@app.command(group=SERVE)
@takes((), prefix=False, own={"serve": ServeSettings})
def serve(
    *runs: Annotated[
        str, Parameter(help="runs' names or paths, RUN@500, latest, or any model folders")
    ],
    device: Annotated[str, Parameter(help="where: auto, cpu, cuda, xpu or mps")] = "auto",
    **options: Any,
) -> None:
    """Answer programs that speak OpenAI's API, with exact probabilities."""
    from nextword.serve.start import listen, settings_from

    given = {path.partition(".")[2]: value for path, value in options.items()}
    listen(runs or ("latest",), settings_from(given), device=device, say=say)


@app.command(group=SERVE)
def watch(
    run: Annotated[str, Parameter(help="a run's name or path, or latest")] = "latest",
    *,
    port: Annotated[int, Parameter(help="to listen on, on this machine alone; 0 for any")] = 8010,
    output: Annotated[
        Path | None,
        Parameter(name=["--output", "-o"], help="write the page as one HTML file instead"),
    ] = None,
    open_: Annotated[
        bool, Parameter(name="--open", negative=(), help="open it in the browser")
    ] = False,
    force: Annotated[bool, Parameter(negative=(), help="replace a file that is there")] = False,
    of: Annotated[int | None, Parameter(show=False)] = None,
) -> None:
    """Show a run on a live page, while it learns or afterwards.

    Its curves, its sentences, and what it would say now.
    """
    from nextword.watch.start import export, watch_run

    if of is not None:  # as `train --watch` starts it
        from nextword.watch.beside import Parent

        parent = Parent(of)
        if (found := parent.run()) is not None:
            watch_run(str(found), port, opens=open_, say=say, until=parent.gone)
        return

    if output is not None:
        export(run, output, force=force)
        say(f"{output} shows how {run} learned; it needs no network")
        return
    if not 0 <= port <= 65_535:
        raise SettingsError(f"port {port}: from 0 to 65535")
    watch_run(run, port, opens=open_, say=say)
