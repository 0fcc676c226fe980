"""Small pieces of text that all renderers share."""


def quoted(text: str) -> str:
    """Quote a text; a line break is shown as a sign."""
    return '"' + text.replace("\n", "⏎") + '"'


def one_line(text: str, most: int) -> str:
    """Put a text on one line of at most so many characters, its beginning kept."""
    flat = " ".join(text.split())
    return flat if len(flat) <= most else flat[: most - 1] + "…"


def tail(text: str, most: int) -> str:
    """Put a text on one line of at most so many characters, its end kept."""
    flat = " ".join(text.split())
    return flat if len(flat) <= most else "…" + flat[-most + 1 :]
