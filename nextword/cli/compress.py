"""Command line: compress and decompress files with a language model."""

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from nextword.cli.program import COMPRESS, AsJson, Run, app, say, write

_LINE_SECONDS = 10.0

File = Annotated[Path, Parameter(help="file to read")]
Output = Annotated[Path, Parameter(name=["--output", "-o"], help="file to make")]
Force = Annotated[bool, Parameter(negative=(), help="overwrite the output if it exists")]
Threads = Annotated[
    int | None,
    Parameter(
        name=["--threads", "--machine.threads"], help="CPU threads (default: what torch chooses)"
    ),
]
Device = Annotated[
    str | None,
    Parameter(
        name=["--device", "--machine.device"],
        help="where to compute; one of auto, cpu, cuda, xpu, mps [default: auto]",
    ),
]


@app.command(group=COMPRESS)
def compress(
    run: Run,
    file: File,
    *,
    output: Output,
    force: Force = False,
    verify: Annotated[bool, Parameter(help="decode what was written, and compare")] = True,
    threads: Threads = None,
    device: Device = None,
    json_: AsJson = False,
) -> None:
    """Pack any file into as many bits as a model's loss says.

    The same model on the same machine gives it back, byte for byte: `nextword decompress`.
    """
    opened = _open("compress", run, file, output, force, threads, device)
    from nextword.prediction.archive import compress as written
    from nextword.rendering.receipt import describe_receipt

    with _progress("compressing") as progress:
        receipt = written(opened, file, output, force=force, verify=verify, progress=progress)
    write(json.dumps(receipt.as_dict()) if json_ else describe_receipt(receipt))


@app.command(group=COMPRESS)
def decompress(
    run: Run,
    file: File,
    *,
    output: Output,
    force: Force = False,
    threads: Threads = None,
    device: Device = None,
    json_: AsJson = False,
) -> None:
    """Write back what `nextword compress` has packed.

    The very same model is needed, on the same machine.
    """
    opened = _open("decompress", run, file, output, force, threads, device)
    from nextword.prediction.archive import decompress as restored

    with _progress("decompressing") as progress:
        done = restored(opened, file, output, force=force, progress=progress)
    if json_:
        write(json.dumps(done._asdict()))
    else:
        write(
            f"{output}: {done.original_bytes:,} bytes from {done.compressed_bytes:,}, "
            f"as they were before, in {done.seconds:.1f} s"
        )


def _open(
    verb: str,
    run: str,
    file: Path,
    output: Path,
    force: bool,
    threads: int | None,
    device: str | None,
) -> Any:
    """Open the model, once all that can be known before has been checked."""
    from nextword.base.errors import CorpusError
    from nextword.settings import resolve

    given = {"machine.threads": threads, "machine.device": device}
    settings = resolve(given={name: value for name, value in given.items() if value is not None})
    if not file.is_file():
        raise CorpusError(f"{file}: no such file")
    from nextword.base.files import check_output
    from nextword.prediction.loading import open_model

    check_output(output, force=force, source=file)
    opened = open_model(run, settings.machine)
    opened.refuse(verb)
    return opened


@contextlib.contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """Draw a bar where standard error is a terminal; else say a line now and then."""
    if not sys.stderr.isatty():
        yield _lines(what)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Left

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TextColumn("tokens"), Left())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _lines(what: str) -> Callable[[int, int], None]:
    last = time.monotonic()

    def tell(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last > _LINE_SECONDS:
            last = time.monotonic()
            say(f"{what}: {done:,} of {total:,} tokens")

    return tell
