"""Why a request is not answered: a gRPC status and a sentence for the client.

Refusal
├── Invalid          INVALID_ARGUMENT    the request is wrong
├── NotFound         NOT_FOUND           the model or version is not served here
├── Exhausted        RESOURCE_EXHAUSTED  too much is waiting already
│   └── Unread       RESOURCE_EXHAUSTED  its client does not read
├── Unavailable      UNAVAILABLE         no pipeline can take it now
│   └── Elsewhere    UNAVAILABLE         this pipeline drains: another may take it
└── Broken           INTERNAL            a stage failed on it
"""

from __future__ import annotations

import grpc

# gRPC drops a status whose details, percent-encoded, pass 8 KiB: the client would hear nothing.
_LONGEST = 600


class Refusal(Exception):
    """The request ends here; the message is for its client, and cut where names make it long."""

    code = grpc.StatusCode.UNKNOWN

    def __init__(self, message: str) -> None:
        super().__init__(message if len(message) <= _LONGEST else f"{message[: _LONGEST - 1]}…")


class Invalid(Refusal):
    """The request is wrong; sending it again will not help."""

    code = grpc.StatusCode.INVALID_ARGUMENT


class NotFound(Refusal):
    """This server does not have what was asked for."""

    code = grpc.StatusCode.NOT_FOUND


class Exhausted(Refusal):
    """Too much work is waiting; after `retry_after` seconds it may go."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Unread(Exhausted):
    """What was made for the client waits, and it does not take it."""


class Unavailable(Refusal):
    """No pipeline can take the request, or the one that had it is gone."""

    code = grpc.StatusCode.UNAVAILABLE


class Elsewhere(Unavailable):
    """The pipeline did not take the request, or gives it back: nothing has happened to it."""


class Broken(Refusal):
    """A stage failed on this request."""

    code = grpc.StatusCode.INTERNAL


BY_CODE: dict[str, type[Refusal]] = {
    kind.code.name: kind for kind in (Invalid, NotFound, Exhausted, Unavailable, Broken)
}
