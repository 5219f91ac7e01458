"""What object stores and their clients raise, translated once: what may pass, and what somebody must act on.

fsspec's file systems raise OSErrors for most answers of a store and let their client's own exceptions through for the
rest. Those are caught by name, so that no client is imported that the URL does not need.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from stream_learner.errors import ConfigError, FatalError, RetryableError

_FOREIGN = (
    ("botocore.exceptions", "BotoCoreError"),
    ("botocore.exceptions", "ClientError"),
    ("aiohttp", "ClientError"),
    ("gcsfs.retry", "HttpError"),
    ("google.auth.exceptions", "GoogleAuthError"),
    ("azure.core.exceptions", "AzureError"),
)
_NO_CONTAINER = ("NoSuchBucket", "ContainerNotFound")
_CONFLICT = ("PreconditionFailed", "412")
_UNSUPPORTED = ("NotImplemented", "501")

_CREDENTIALS = "check the credentials in checkpoints.options or the environment"
_RIGHTS = f"{_CREDENTIALS}, the clock, and the bucket's policy: a worker lists, reads, writes and deletes there"
_CONTAINER = "make the bucket, or correct checkpoints.root"
_OPTIONS = "correct checkpoints.root or checkpoints.options"
_READ_ONLY = "name a store that can be written in checkpoints.root"
_LASTING_CODES = {
    **dict.fromkeys(_NO_CONTAINER, _CONTAINER),
    **dict.fromkeys(("InvalidBucketName", "PermanentRedirect", "301", "AuthorizationHeaderMalformed"), _OPTIONS),
    **dict.fromkeys(("AccessDenied", "401", "403", "InvalidToken", "ExpiredToken"), _RIGHTS),
    **dict.fromkeys(("MethodNotAllowed", "405", *_UNSUPPORTED), _READ_ONLY),
}
_LASTING_TYPES: dict[str, str] = {  # by the name of a class or one of its bases
    "PermissionError": _RIGHTS,
    "NoCredentialsError": _CREDENTIALS,
    "PartialCredentialsError": _CREDENTIALS,
    "ProfileNotFound": _CREDENTIALS,
    "DefaultCredentialsError": _CREDENTIALS,
    "ClientAuthenticationError": _CREDENTIALS,
    "FileNotFoundError": _CONTAINER,  # of something to be written; where an object may be missing, that is no error
    "ParamValidationError": _OPTIONS,
    "NoRegionError": _OPTIONS,
    "NotImplementedError": _READ_ONLY,
    "TypeError": _OPTIONS,
    "ValueError": _OPTIONS,
}
_PASSING = "the store or the way to it is failing"
_LONGEST = 300  # characters quoted of a client's message


def foreign_errors() -> tuple[type[BaseException], ...]:
    """What a file system may raise, as far as its client is imported. TypeError and ValueError are for options that
    the client refuses when it first connects."""
    known = (getattr(sys.modules.get(module), name, None) for module, name in _FOREIGN)
    return (OSError, NotImplementedError, TypeError, ValueError, *(kind for kind in known if kind is not None))


@contextmanager
def remote_errors(url: str, action: str, silenced: Callable[[str], str]) -> Iterator[None]:
    """Turns what a file system raises in the block into `RetryableError` or `ConfigError`, naming URL, action and
    remedy; `silenced` takes secrets out of the client's words."""
    try:
        yield
    except foreign_errors() as error:
        words = " ".join(silenced(str(error) or type(error).__name__).split())[:_LONGEST]
        message, remedy = f"cannot {action} {url}: {words}", _remedy(error)
        if remedy is None:
            raise RetryableError(f"{message}; {_PASSING}") from None
        raise ConfigError(f"{message}; {remedy}") from None


def refused(error: BaseException) -> bool:
    """A conditional write whose condition did not hold."""
    return isinstance(error, FileExistsError) or _code(error) in _CONFLICT


def unconditional(error: BaseException) -> bool:
    """The store has no conditional writes."""
    return _code(error) in _UNSUPPORTED


def no_container(error: BaseException) -> bool:
    """Not the object is missing, but the bucket."""
    return _code(error) in _NO_CONTAINER or any(name in str(error) for name in _NO_CONTAINER)


def _remedy(error: BaseException) -> str | None:
    """What somebody must do; None where waiting may do."""
    code = _code(error)
    if code in _LASTING_CODES:
        return _LASTING_CODES[code]
    if isinstance(error, FatalError) or getattr(error, "errno", None) in (errno.ENOSPC, errno.EIO):
        return None
    names = (kind.__name__ for kind in type(error).__mro__)
    return next((_LASTING_TYPES[name] for name in names if name in _LASTING_TYPES), None)


def _code(error: BaseException | None) -> str:
    """The store's own code (S3's word, Google's status) in an exception or what caused it; empty where none is."""
    while error is not None:
        answer = getattr(error, "response", None)
        if isinstance(answer, dict):
            return str(answer.get("Error", {}).get("Code", ""))
        if type(error).__name__ == "HttpError":
            return str(getattr(error, "code", ""))
        if str(error).startswith("Forbidden:"):  # as gcsfs puts it
            return "403"
        error = error.__cause__
    return ""
