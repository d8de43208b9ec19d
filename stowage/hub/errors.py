"""What the hub refuses, in the words of the Hugging Face Hub.

HubError
|-- RepoNotFound       404 RepoNotFound       no such model
|-- RevisionNotFound   404 RevisionNotFound   no such branch or tag, or a commit that is no ref's content any more
|-- EntryNotFound      404 EntryNotFound      no such file or folder at that revision
|-- AccessRefused      401 GatedRepo          no token, or a wrong one
|-- InvalidQuery       400 BadRequest         a query parameter that says nothing
|-- InvalidLayout      422 InvalidLayout      the model's folder is not laid out as the hub's documentation says
`-- ContentChanging    503 ContentChanging    files are being written right now; the same request succeeds later
"""

from typing import ClassVar


class HubError(Exception):
    """Whatever the hub answers instead of what was asked for; `headers` are added to the answer's."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "InternalError"

    def __init__(self, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.headers = headers or {}


class RepoNotFound(HubError):
    """There is no such model."""

    status = 404
    code = "RepoNotFound"


class RevisionNotFound(HubError):
    """The model has no such branch or tag, or the commit is the content of none of them any more."""

    status = 404
    code = "RevisionNotFound"


class EntryNotFound(HubError):
    """The revision has no such file or folder."""

    status = 404
    code = "EntryNotFound"


class AccessRefused(HubError):
    """The hub wants a token and got none, or one that it does not know."""

    status = 401
    code = "GatedRepo"


class InvalidQuery(HubError):
    """A parameter of the query is wrong; the message names it."""

    status = 400
    code = "BadRequest"


class InvalidLayout(HubError):
    """The model's folder or its `.hub.json` is wrong; the message says where and what to change."""

    status = 422
    code = "InvalidLayout"


class ContentChanging(HubError):
    """Files of the model are written faster than the hub can read them."""

    status = 503
    code = "ContentChanging"
