"""An application from paths and what stands behind each; whatever goes wrong is one kind of answer.

The endpoint and the live page are both made so.
"""

import contextlib
import functools
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from nextword.base.errors import NextwordError
from nextword.serve.errors import ApiError
from nextword.serve.guard import Guard, refusal
from nextword.serve.options import ServeSettings
from nextword.serve.ports import open_door

State = TypeVar("State")
Door = Callable[[State, Request], Awaitable[Response]]
_LOG = logging.getLogger("nextword.serve")


def application(
    state: State,
    doors: Mapping[str, tuple[str, Door[State]]],
    settings: ServeSettings,
    layers: Sequence[Middleware] = (),
    lifespan: Any = None,
) -> Starlette:
    """Build an application that answers at some paths.

    Args:
        state: what every door is given.
        doors: for each path its method, and what answers there.
        settings: say who may ask.
        layers: stand between the guard and the doors.
        lifespan: as Starlette takes it.
    """
    routes = [
        Route(path, functools.partial(_door, door, state), methods=[method])
        for path, (method, door) in doors.items()
    ]
    app = Starlette(
        routes=routes, middleware=[Middleware(Guard, settings=settings), *layers],
        lifespan=lifespan, exception_handlers={HTTPException: _not_found, ApiError: _refused},
    )  # fmt: skip
    app.router.redirect_slashes = False  # another path is another path
    return app


async def _door(door: Door[State], state: State, request: Request) -> Response:
    """Answer a request; what goes wrong is answered as an error, and never more than that said."""
    try:
        return await door(state, request)
    except ApiError as error:
        return refusal(error)
    except ClientDisconnect:
        return Response(status_code=499)
    except NextwordError as error:
        return refusal(ApiError(str(error)))
    except Exception:
        _LOG.exception("%s %s", request.method, request.url.path)
        return refusal(ApiError("a mistake of the server's own; its log says more", status=500))


async def _not_found(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code)
    what = f"{request.method} {request.url.path}: {error.detail}"
    answered = refusal(ApiError(what, status=error.status_code, code=code))
    answered.headers.update(error.headers or {})
    return answered


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return refusal(error)


def answer_json(value: Any) -> Response:
    """Answer with a value."""
    return Response(msgspec.json.encode(value), media_type="application/json")


@contextlib.contextmanager
def in_thread(app: Starlette, port: int = 0) -> Iterator[str]:
    """Serve an application from a thread of this process, on this machine; yield its address."""
    import uvicorn

    host = "127.0.0.1"
    with open_door(host, port) as door:
        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=5)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [door]}, daemon=True)
        thread.start()
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        try:
            yield f"http://{host}:{door.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
