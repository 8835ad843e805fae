"""Errors that clients are told, with the codes of both protocols."""

from grpc import StatusCode

# As TensorFlow Serving maps them, except for RESOURCE_EXHAUSTED: its 429 blames
# the client's rate, while here the server is full. Others are 500.
_HTTP = {
    StatusCode.CANCELLED: 499,
    StatusCode.INVALID_ARGUMENT: 400,
    StatusCode.DEADLINE_EXCEEDED: 504,
    StatusCode.NOT_FOUND: 404,
    StatusCode.ALREADY_EXISTS: 409,
    StatusCode.PERMISSION_DENIED: 403,
    StatusCode.RESOURCE_EXHAUSTED: 503,
    StatusCode.FAILED_PRECONDITION: 400,
    StatusCode.ABORTED: 409,
    StatusCode.OUT_OF_RANGE: 400,
    StatusCode.UNIMPLEMENTED: 501,
    StatusCode.UNAVAILABLE: 503,
    StatusCode.UNAUTHENTICATED: 401,
}
_BY_NUMBER = {code.value[0]: code for code in StatusCode}

# Bytes of a message. It may repeat what a client has sent, and with gRPC it
# travels in a header, which has a limit of its own.
_MAX_MESSAGE = 1500


class ServingError(Exception):
    """A request that is answered with an error.

    `http` is for where HTTP has a status that says more than that of the code.
    """

    def __init__(
        self, code: StatusCode, message: str, http: int | None = None
    ) -> None:
        text = message.encode("utf-8", "replace")[:_MAX_MESSAGE]
        self.message = text.decode("utf-8", "ignore")
        super().__init__(self.message)
        self.code = code
        self.http = http or _HTTP.get(code, 500)


def invalid(message: str) -> ServingError:
    """Returns the error for a request that is wrong."""
    return ServingError(StatusCode.INVALID_ARGUMENT, message)


def too_large(message: str) -> ServingError:
    """Returns the error for a request that is larger than allowed."""
    return ServingError(StatusCode.INVALID_ARGUMENT, message, http=413)


def as_serving_error(error: BaseException) -> ServingError:
    """Returns what a client is told of any error.

    TensorFlow's errors say what is wrong with the input. Of others the client
    learns the type only, because they are internal.
    """
    if isinstance(error, ServingError):
        return error
    number = getattr(error, "error_code", None)
    if isinstance(number, int):
        code = _BY_NUMBER.get(number, StatusCode.UNKNOWN)
        return ServingError(code, str(getattr(error, "message", error)))
    return ServingError(
        StatusCode.INTERNAL,
        f"The server failed on this: {type(error).__name__}",
    )


def forget_origin(error: BaseException) -> None:
    """Drops where an error has come from, once it has been answered.

    Otherwise errors, futures and functions refer to each other in circles, and
    requests of hundreds of megabytes stay until garbage is collected.
    """
    current: BaseException | None = error
    # An error may be its own cause.
    while current is not None and current.__traceback__ is not None:
        current.__traceback__ = None
        current = current.__cause__ or current.__context__
