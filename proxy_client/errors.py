"""The errors of Stowage and their codes, one table for the manager, the storage proxy and their clients.

StowageError                     code and status
|-- BadRequest                   BAD_REQUEST 400            the caller changes the named field
|-- Unauthenticated              UNAUTHENTICATED 401        the caller brings a token
|-- Forbidden                    FORBIDDEN 403              the caller asks for permission
|-- NotFound                     NOT_FOUND 404              the caller names something that exists
|-- Conflict                     CONFLICT 409               something else is in the way
|-- UnsupportedRegistry          UNSUPPORTED_REGISTRY 422   the registry's type has no such operation
|-- Unavailable                  UNAVAILABLE 503            the caller comes back later
|-- Internal                     INTERNAL 500               the operator reads the log
|-- StorageError
|   |-- PathRefused              PATH_REFUSED 422           a name that must not be written
|   |-- DestinationConflict      DESTINATION_CONFLICT 409   a file of somebody else is in the way
|   |-- DiskFull                 DISK_FULL 507              the file system has no room
|   |-- QuotaExceeded            QUOTA_EXCEEDED 413         the quota scope has no room
|   |-- ReadOnlyStorage          READ_ONLY 403              the file system refuses writes
|   `-- StorageFailure           STORAGE_IO 500             any other error of the file system
|-- SourceError
|   |-- SourceNotFound           SOURCE_NOT_FOUND 404       no such model, revision or file
|   |-- SourceForbidden          SOURCE_FORBIDDEN 403       gated, private, or a wrong registry token
|   |-- SourceUnavailable        SOURCE_UNAVAILABLE 502     no answer, 429 and 5xx that outlast the retries, stalls
|   |-- SourceInvalid            SOURCE_INVALID 502         an answer that breaks the registry's protocol
|   `-- SourceChanged            SOURCE_CHANGED 409         what was pinned is not what is served
|-- VerificationError
|   |-- DigestMismatch           DIGEST_MISMATCH 422        bytes that are not the registry's
|   |-- VerificationIncomplete   VERIFICATION_INCOMPLETE 422  not everything could be checked
|   `-- VerificationBlocked      VERIFICATION_BLOCKED 422   a verifier said no
|-- PermissionRevoked            PERMISSION_REVOKED 403     the requester may no longer write there
|-- Rejected                     REJECTED 409               an administrator said no
`-- AttemptsExhausted            ATTEMPTS_EXHAUSTED 500     the import took its worker down too often
"""

from typing import ClassVar


class StowageError(Exception):
    """Whatever Stowage tells a caller.

    `message` is for people and names the remedy; `field` is the input that is wrong, in the caller's own
    spelling (`input.vfolderId`), where there is one. Neither holds secrets or absolute paths.
    """

    code: ClassVar[str] = "INTERNAL"
    status: ClassVar[int] = 500

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field


class BadRequest(StowageError):
    """The request itself is wrong; the same request will never succeed."""

    code = "BAD_REQUEST"
    status = 400


class Unauthenticated(StowageError):
    """No token, or one that is unknown, expired or revoked."""

    code = "UNAUTHENTICATED"
    status = 401


class Forbidden(StowageError):
    """The caller may see the thing but not do this with it."""

    code = "FORBIDDEN"
    status = 403


class NotFound(StowageError):
    """There is no such thing, or the caller may not know of it."""

    code = "NOT_FOUND"
    status = 404


class Conflict(StowageError):
    """The request is fine but collides with the present state."""

    code = "CONFLICT"
    status = 409


class UnsupportedRegistry(StowageError):
    """The registry's type does not offer this operation."""

    code = "UNSUPPORTED_REGISTRY"
    status = 422


class Unavailable(StowageError):
    """A part of Stowage does not answer now; the same request may succeed later."""

    code = "UNAVAILABLE"
    status = 503


class Internal(StowageError):
    """A fault of Stowage itself; the message shows nothing but that."""


class StorageError(StowageError):
    """The destination does not take the files."""


class PathRefused(StorageError):
    """A path that the path policy refuses: hostile, reserved or colliding with another one."""

    code = "PATH_REFUSED"
    status = 422


class DestinationConflict(StorageError):
    """A file that this artifact does not own lies where one of its files should go."""

    code = "DESTINATION_CONFLICT"
    status = 409


class DiskFull(StorageError):
    """The file system has too little room (ENOSPC)."""

    code = "DISK_FULL"
    status = 507


class QuotaExceeded(StorageError):
    """The quota scope has too little room (EDQUOT, or the proxy's own count)."""

    code = "QUOTA_EXCEEDED"
    status = 413


class ReadOnlyStorage(StorageError):
    """The file system or directory refuses writes (EROFS, EACCES, EPERM)."""

    code = "READ_ONLY"
    status = 403


class StorageFailure(StorageError):
    """The file system failed in another way (EIO and the like)."""

    code = "STORAGE_IO"


class SourceError(StowageError):
    """The registry does not give the files."""


class SourceNotFound(SourceError):
    """The registry has no such model, revision or file."""

    code = "SOURCE_NOT_FOUND"
    status = 404


class SourceForbidden(SourceError):
    """The registry refuses: gated, private, or its token is wrong."""

    code = "SOURCE_FORBIDDEN"
    status = 403


class SourceUnavailable(SourceError):
    """The registry gave no usable answer within the retries and deadlines."""

    code = "SOURCE_UNAVAILABLE"
    status = 502


class SourceInvalid(SourceError):
    """The registry's answer breaks its protocol (HTML for JSON, wrong lengths, redirect loops)."""

    code = "SOURCE_INVALID"
    status = 502


class SourceChanged(SourceError):
    """The registry no longer serves the pinned commit's bytes."""

    code = "SOURCE_CHANGED"
    status = 409


class VerificationError(StowageError):
    """The files arrived but may not be published."""


class DigestMismatch(VerificationError):
    """A file's size or digest is not what the registry states; the message holds both."""

    code = "DIGEST_MISMATCH"
    status = 422


class VerificationIncomplete(VerificationError):
    """Fewer files were checked than the manifest lists, or a verifier could not do its work."""

    code = "VERIFICATION_INCOMPLETE"
    status = 422


class VerificationBlocked(VerificationError):
    """A verifier found something that must not be published."""

    code = "VERIFICATION_BLOCKED"
    status = 422


class PermissionRevoked(StowageError):
    """The requester lost the right to write to the destination while the import ran."""

    code = "PERMISSION_REVOKED"
    status = 403


class Rejected(StowageError):
    """An administrator rejected the import."""

    code = "REJECTED"
    status = 409


class AttemptsExhausted(StowageError):
    """The import was started as often as the setting allows and never came to an end."""

    code = "ATTEMPTS_EXHAUSTED"


def _tree(root: type[StowageError]) -> list[type[StowageError]]:
    return [root, *(leaf for child in root.__subclasses__() for leaf in _tree(child))]


_BY_CODE: dict[str, type[StowageError]] = {
    error.code: error for error in reversed(_tree(StowageError)) if "code" in error.__dict__
} | {"INTERNAL": Internal}

CODES: frozenset[str] = frozenset(_BY_CODE)


def error_for(code: str, message: str, *, field: str | None = None) -> StowageError:
    """Make the error that `code` names; an unknown code gives `Internal`, so that a newer peer is no crash."""
    return _BY_CODE.get(code, Internal)(message, field=field)
