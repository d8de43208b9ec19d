"""Global ids: base64 of `TypeName:uuid`, as Relay has them; a plain UUID is accepted wherever one is."""

import base64
import re
from collections.abc import Sequence
from uuid import UUID

import strawberry

from proxy_client.errors import BadRequest

_PLAIN = re.compile(r"[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}", re.IGNORECASE)


def global_id(type_name: str, key: UUID) -> strawberry.ID:
    """Name an object among all objects."""
    return strawberry.ID(base64.b64encode(f"{type_name}:{key}".encode()).decode())


def parse_id(text: str, *type_names: str, field: str) -> UUID:
    """Read a plain UUID or the global id of one of the types. Raises `BadRequest` that names `field`."""
    if _PLAIN.fullmatch(text):
        return UUID(text)
    try:
        type_name, colon, key = base64.b64decode(text, validate=True).decode().partition(":")
    except ValueError:
        type_name, colon, key = "", "", ""
    if not colon or not _PLAIN.fullmatch(key):
        raise BadRequest(
            f"{field}: {text[:80]!r} is no id; pass a UUID or the id of {_one(type_names[0])}", field=field
        )
    if type_name not in type_names:
        raise BadRequest(
            f"{field} is the id of {_one(type_name[:40])}; pass a UUID or the id of {_one(type_names[0])}",
            field=field,
        )
    return UUID(key)


def parse_ids(texts: Sequence[str], type_name: str, *, field: str) -> list[UUID]:
    """Read each id of a list; the error names the one that is wrong, as in `input.artifactRevisionIds[1]`."""
    return [parse_id(text, type_name, field=f"{field}[{number}]") for number, text in enumerate(texts)]


def _one(type_name: str) -> str:
    return f"{'an' if type_name[:1] in set('AEIOaeio') else 'a'} {type_name}"
