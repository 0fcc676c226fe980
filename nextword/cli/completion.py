"""Command line: Tab completes verbs and options."""

import os
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from nextword.base.errors import SettingsError
from nextword.base.files import write_text
from nextword.cli.program import OPTIONS, app, say, write

SHELLS = ("bash", "zsh", "fish")
_ZSH_ENDS = """
# Read by its file's name when Tab is first pressed it completes at once, else from then on.
case "$funcstack[1]" in
  _nextword|_cyclopts_nextword) _cyclopts_nextword "$@" ;;
  *) compdef _cyclopts_nextword nextword ;;
esac
"""
"""Without it the first Tab only defines the function, and does nothing."""


@app.command(group=OPTIONS)
def completion(
    shell: Annotated[
        Literal["bash", "zsh", "fish"] | None,
        Parameter(help="for which [default: the one that SHELL names]"),
    ] = None,
    *,
    install: Annotated[
        bool,
        Parameter(negative=(), help="put it where the shell looks, and a line into its start file"),
    ] = False,
) -> None:
    """Complete verbs and options by Tab.

    Print a shell's script, or install it.
    """
    chosen = shell or Path(os.environ.get("SHELL", "")).name
    if chosen not in SHELLS:
        raise SettingsError(f"SHELL names {chosen!r}; say which: {', '.join(SHELLS)}")
    script = app.generate_completion(prog_name="nextword", shell=chosen)  # type: ignore[arg-type]
    script = script.rstrip() + "\n" + (_ZSH_ENDS if chosen == "zsh" else "")
    if not install:
        write(script)
        return
    try:
        file = app.install_completion(shell=chosen)  # type: ignore[arg-type]
        if chosen == "zsh":
            write_text(file, script)
            _tell_zsh()
    except OSError as error:
        raise SettingsError(f"{error.filename}: cannot be written ({error.strerror})") from None
    say(f"{file}: begin a new {chosen}, and Tab completes")


_ZSH_KNOWS = """\
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
autoload -Uz _cyclopts_nextword && compdef _cyclopts_nextword nextword
"""


def _tell_zsh() -> None:
    """Let its start file take the function up.

    The folder alone, which stands there by now, is seen by who looks through the folders later in
    that file, and mostly that is done before; where nobody has let Tab complete at all, never.
    """
    file = Path.home() / ".zshrc"
    known = file.read_text(encoding="utf-8", errors="surrogateescape") if file.exists() else ""
    if _ZSH_KNOWS not in known:
        with file.open("a", encoding="utf-8") as stream:
            stream.write(("" if known.endswith("\n") or not known else "\n") + _ZSH_KNOWS)
