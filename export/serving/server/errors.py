"""Errors that a client is told, with the codes of both protocols."""

import enum


class Code(enum.Enum):
    """Status codes of gRPC, each with that of HTTP.

    As TensorFlow Serving maps them, but for `RESOURCE_EXHAUSTED`: its 429
    blames the client's rate, while here the server is full (503).
    """

    CANCELLED = (1, 499)
    UNKNOWN = (2, 500)
    INVALID_ARGUMENT = (3, 400)
    DEADLINE_EXCEEDED = (4, 504)
    NOT_FOUND = (5, 404)
    ALREADY_EXISTS = (6, 409)
    PERMISSION_DENIED = (7, 403)
    RESOURCE_EXHAUSTED = (8, 503)
    FAILED_PRECONDITION = (9, 400)
    ABORTED = (10, 409)
    OUT_OF_RANGE = (11, 400)
    UNIMPLEMENTED = (12, 501)
    INTERNAL = (13, 500)
    UNAVAILABLE = (14, 503)
    DATA_LOSS = (15, 500)
    UNAUTHENTICATED = (16, 401)

    def __init__(self, number: int, http: int) -> None:
        self.number = number
        self.http = http

    @classmethod
    def of_number(cls, number: int) -> "Code":
        """Returns the code of a number of gRPC or TensorFlow."""
        for code in cls:
            if code.number == number:
                return code
        return cls.UNKNOWN


class ServingError(Exception):
    """A request that is answered by an error.

    Args:
        code: What kind of error it is.
        message: What the client is told.
        http: Status of HTTP, where it says more than that of the code.
    """

    def __init__(self, code: Code, message: str, http: int | None = None):
        super().__init__(message)
        self.code = code
        self.message = message
        self.http = code.http if http is None else http


def invalid(message: str) -> ServingError:
    """An error of the client."""
    return ServingError(Code.INVALID_ARGUMENT, message)


def as_serving_error(error: BaseException) -> ServingError:
    """What a client is told of any error.

    TensorFlow's errors say what was wrong with the input; of others the
    client learns the type alone, for they are the server's own.
    """
    if isinstance(error, ServingError):
        return error
    number = getattr(error, "error_code", None)
    if isinstance(number, int):
        message = str(getattr(error, "message", error))
        return ServingError(Code.of_number(number), message)
    return ServingError(
        Code.INTERNAL, f"The server failed on this: {type(error).__name__}"
    )
