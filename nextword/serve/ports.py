"""Ports to listen on: taken, or said why not, with one that is free."""

import socket

from nextword.base.errors import SettingsError

TRIED = 100
"""Ports after one that is taken, among which a free one is looked for, to name it."""
BACKLOG = 2048
"""Callers that may wait until they are let in."""


def open_door(host: str, port: int) -> socket.socket:
    """Take a port.

    Raises:
        SettingsError: somebody listens there already, or nobody may.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise SettingsError(f"{host}: no such address ({error})") from None
    door = socket.socket(family, socket.SOCK_STREAM)
    door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        door.bind(address)
        door.listen(BACKLOG)
    except OSError as error:
        door.close()
        free = next_free(host, port)
        advice = f"; --port {free} is free" if free else ""
        raise SettingsError(
            f"{host}:{port} cannot be listened on ({error.strerror}){advice}"
        ) from None
    return door


def next_free(host: str, port: int) -> int | None:
    """Find the next port that is free."""
    others = range(port + 1, min(port + TRIED, 65_536))
    return next((other for other in others if is_free(host, other)), None)


def is_free(host: str, port: int) -> bool:
    """Whether nobody listens on a port."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as trial:
        try:
            trial.bind((host, port))
        except OSError:
            return False
    return True
