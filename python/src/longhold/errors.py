"""One exception for each status of liblonghold. The message names the object and the next step."""

from __future__ import annotations


class Error(Exception):
    """What a call of longhold ended with. ``status`` is the number of lh_status."""

    status = 0


class InvalidArgument(Error, ValueError):
    """Wrong in any state."""

    status = 1


class NotFound(Error, LookupError):
    """No such memory, document or file."""

    status = 2


class AlreadyExists(Error):
    status = 3


class FailedPrecondition(Error):
    """Another model's memory; another process writes to it; a home that is closed."""

    status = 4


class ResourceExhausted(Error):
    """Disk or memory budget."""

    status = 5


class DeadlineExceeded(Error, TimeoutError):
    status = 6


class Cancelled(Error):
    status = 7


class Unavailable(Error):
    """May succeed later."""

    status = 8


class DataLoss(Error):
    """Stored bytes are damaged or missing."""

    status = 9


class Unimplemented(Error, NotImplementedError):
    """A model or an option that longhold does not serve. The message names it."""

    status = 10


class Internal(Error):
    """A bug in longhold."""

    status = 11


_BY_STATUS: dict[int, type[Error]] = {
    kind.status: kind
    for kind in (
        InvalidArgument,
        NotFound,
        AlreadyExists,
        FailedPrecondition,
        ResourceExhausted,
        DeadlineExceeded,
        Cancelled,
        Unavailable,
        DataLoss,
        Unimplemented,
        Internal,
    )
}


def of_status(status: int, message: str) -> Error:
    """The exception for a status that is not LH_OK."""
    return _BY_STATUS.get(status, Internal)(message)
