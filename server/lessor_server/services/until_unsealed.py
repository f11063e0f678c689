"""What the port serves while AWS KMS has not decrypted the data keys: health, and one error for all else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import grpc

from lessor_server.domain.errors.sealing import SealingKeyUnavailable
from lessor_server.services import status

RETRY_SECONDS = 5.0


class UntilUnsealed(grpc.GenericRpcHandler):
    """Serves ``health`` only, until it is opened with the handlers of all services."""

    def __init__(self, health: grpc.GenericRpcHandler) -> None:
        """Begin closed."""
        self._handlers: Sequence[grpc.GenericRpcHandler] = (health, _Refused())

    def open(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Serve by ``handlers`` from now on, the first that knows the method."""
        self._handlers = handlers

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Return the handler of a method."""
        for handler in self._handlers:
            if (found := handler.service(details)) is not None:
                return found
        return None


class _Refused(grpc.GenericRpcHandler):
    """Refuses every method, before its message is read."""

    def service(self, _: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        return grpc.stream_unary_rpc_method_handler(_refuse)


async def _refuse(_: object, context: grpc.aio.ServicerContext[Any, Any]) -> NoReturn:
    error = SealingKeyUnavailable("the data keys are not decrypted yet", retry_in=RETRY_SECONDS)
    answer = status.error_status(error, sees_root=False)
    await context.abort(answer.code, answer.message, ((status.DETAILS_KEY, answer.details),))
    raise AssertionError("abort raises")
