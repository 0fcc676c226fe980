"""Who may come in: key, host, origin, size of the request. An ASGI layer before all routes.

A page that a user visits could ask a server on the same machine: by its own name, made to point
here (DNS rebinding), or across origins. So the Host must be one of this server's names, and an
Origin, which browsers send, one that was allowed.
"""

import hmac
import ipaddress
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nextword.serve.errors import ApiError
from nextword.serve.options import ServeSettings

OPEN = {"/health"}
"""Paths that need no key: they tell nothing but that the server is there."""
LOCAL = ("localhost", "127.0.0.1", "::1")


def is_local(host: str) -> bool:
    """Whether an address is reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


class Guard:
    """Lets in who may come in."""

    def __init__(self, app: ASGIApp, settings: ServeSettings) -> None:
        """Stand before an application.

        Args:
            app: what is asked where nothing is wrong.
            settings: say who may ask, and how much.
        """
        self.app, self.settings = app, settings
        self.hosts = {name.lower() for name in (*LOCAL, settings.host, *settings.allow_hosts)}
        # On all addresses a server has names that it does not know. A key stands before them; or
        # it is called by an address, which no name can be made to point from.
        everywhere = settings.host in ("0.0.0.0", "::") and not settings.allow_hosts
        self.any_host = everywhere and bool(settings.api_key)
        self.any_address = everywhere

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it with an error."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            self._check_host(headers)
            self._check_origin(headers)
            preflight = scope["method"] == "OPTIONS" and headers.get("origin") is not None
            if scope["path"] not in OPEN and not preflight:
                self._check_key(headers)
            self._check_size(headers)
        except ApiError as error:
            answered, origin = refusal(error), headers.get("origin", "")
            if {origin, "*"} & {*self.settings.allow_origins}:  # or its page would not see why
                answered.headers["Access-Control-Allow-Origin"] = origin
                answered.headers["Vary"] = "Origin"
            await answered(scope, receive, send)
            return
        await self.app(scope, self._counted(receive), send)

    def _check_host(self, headers: Headers) -> None:
        host = _name(f"//{headers.get('host', '')}")
        if self.any_host or (self.any_address and _is_address(host)):
            return
        if host not in self.hosts:
            raise ApiError(
                "this server is not called so; --allow-hosts names it otherwise",
                status=421, code="unknown_host",
            )  # fmt: skip

    def _check_origin(self, headers: Headers) -> None:
        origin = headers.get("origin")
        if origin is None or "*" in self.settings.allow_origins:
            return
        own = headers.get("host", "")
        is_own = origin.partition("://")[2].lower() == own.lower() and _name(origin) in self.hosts
        if not is_own and origin not in self.settings.allow_origins:
            raise ApiError(
                "pages of this origin may not ask; --allow-origins lets them",
                status=403, code="origin_not_allowed",
            )  # fmt: skip

    def _check_key(self, headers: Headers) -> None:
        key = self.settings.api_key
        if not key:
            return
        kind, _, given = headers.get("authorization", "").partition(" ")
        same = hmac.compare_digest(given.strip().encode("utf-8"), key.encode("utf-8"))
        if kind.lower() != "bearer" or not same:
            raise ApiError(
                "a key is needed: send it as Authorization: Bearer KEY",
                status=401, code="invalid_api_key",
            )  # fmt: skip

    def _check_size(self, headers: Headers) -> None:
        size = headers.get("content-length", "0")
        if not size.isdecimal() or int(size) > self.settings.body_bytes:
            raise _too_large(self.settings.body_bytes)

    def _counted(self, receive: Receive) -> Receive:
        """Count what arrives, for its length need not have been told."""
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            if message["type"] == "http.request":
                seen += len(message.get("body", b""))
                if seen > self.settings.body_bytes:
                    raise _too_large(self.settings.body_bytes)
            return message

        return counted


def refusal(error: ApiError) -> JSONResponse:
    """Answer with an error."""
    headers = {401: {"WWW-Authenticate": "Bearer"}, 429: {"Retry-After": "1"}}
    return JSONResponse(error.as_dict(), error.status, headers.get(error.status))


def _name(address: str) -> str:
    try:
        return (urlsplit(address).hostname or "").lower()
    except ValueError:
        return ""


def _too_large(most: int) -> ApiError:
    return ApiError(
        f"the request is larger than {most:,} bytes", status=413, code="request_too_large"
    )


def unsafe(settings: ServeSettings) -> Iterable[str]:
    """Say what would be unsafe about an address."""
    if not is_local(settings.host) and not settings.api_key and not settings.insecure:
        yield (
            f"{settings.host} can be reached from other machines: give --api-key KEY "
            "(or NEXTWORD_API_KEY), or --insecure where nobody else can reach it"
        )
