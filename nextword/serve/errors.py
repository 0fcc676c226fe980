"""Errors as OpenAI writes them down: message, type, param, code, and the status of the answer."""

from typing import Any

from nextword.base.errors import ServingError

KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    421: "permission_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
}


class ApiError(ServingError):
    """Something that is answered with an error."""

    def __init__(
        self, message: str, *, status: int = 400, param: str | None = None, code: str | None = None
    ) -> None:
        """Say what is wrong.

        Args:
            message: what, where and what to do.
            status: of HTTP.
            param: the field that is wrong.
            code: a short name for programs.
        """
        super().__init__(message)
        self.status, self.param, self.code = status, param, code

    def as_dict(self) -> dict[str, Any]:
        """Return what is sent."""
        return {
            "error": {
                "message": str(self),
                "type": KINDS.get(self.status, "server_error"),
                "param": self.param,
                "code": self.code,
            }
        }
