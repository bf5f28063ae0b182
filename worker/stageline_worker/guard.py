"""Lets whoever calls a worker do what its certificate says that it is, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc

from stageline_wire.credentials import call_roles
from stageline_wire.roles import objection

_Behaviour = Callable[[Any, grpc.ServicerContext], Any]
_KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")


class Guard(grpc.ServerInterceptor):
    """For a server whose port asks for certificates: PERMISSION_DENIED with a sentence."""

    def intercept_service(
        self, continuation: Callable[[Any], Any], details: grpc.HandlerCallDetails
    ) -> Any:
        handler = continuation(details)
        if handler is None:
            return None
        kind = next(kind for kind in _KINDS if getattr(handler, kind) is not None)
        return handler._replace(**{kind: _guarded(details.method, getattr(handler, kind))})


def _guarded(method: str, behaviour: _Behaviour) -> _Behaviour:
    def call(request: Any, context: grpc.ServicerContext) -> Any:
        if reason := objection(method, call_roles(context)):
            context.abort(grpc.StatusCode.PERMISSION_DENIED, reason)
        return behaviour(request, context)

    return call
