"""Pages with a cursor, linked as https://datatracker.ietf.org/doc/html/rfc8288 says."""

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from typing import TypeVar
from urllib.parse import urlencode

from starlette.requests import Request

from stowage.hub.errors import InvalidQuery

T = TypeVar("T")
Key = list[str | int]


def page_of(
    items: Sequence[T], key: Callable[[T], Key], request: Request, *, size: int, descending: bool = False
) -> tuple[list[T], Key | None]:
    """Return a page and the key of its last item, None on the last page.

    The query's `limit` (items) makes the page smaller than `size`, its `cursor` says where it begins. The page is
    in the order of `key`, which is unique, and stable where items come and go between two pages.
    """
    size = min(size, positive(request, "limit") or size)
    ordered = sorted(items, key=key, reverse=descending)
    if (after := _cursor(request)) is not None:
        try:
            ordered = [item for item in ordered if (key(item) < after if descending else key(item) > after)]
        except TypeError as exc:
            raise InvalidQuery("cursor: is not one of this hub") from exc
    page = ordered[:size]
    return page, key(page[-1]) if len(ordered) > size else None


def link_to_next(request: Request, path: str, last: Key | None) -> dict[str, str]:
    """Return the `Link` header for the page after `last`, at `path` (percent-encoded) with the same query."""
    if last is None:
        return {}
    cursor = base64.urlsafe_b64encode(json.dumps(last).encode()).decode()
    query = [(name, value) for name, value in request.query_params.multi_items() if name != "cursor"]
    url = f"{str(request.base_url).rstrip('/')}{path}?{urlencode([*query, ('cursor', cursor)])}"
    return {"Link": f'<{url}>; rel="next"'}


def positive(request: Request, name: str) -> int | None:
    """Read a parameter that is a whole number from 1 on, or absent. Raises `InvalidQuery`."""
    if (text := request.query_params.get(name)) is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) > 0):  # noqa: PLR2004 -- digits
        raise InvalidQuery(f"{name}: must be a whole number from 1 on")
    return int(text)


def _cursor(request: Request) -> Key | None:
    if (text := request.query_params.get("cursor")) is None:
        return None
    try:
        cursor = json.loads(base64.urlsafe_b64decode(text.encode()))
    except (binascii.Error, UnicodeError, ValueError, RecursionError) as exc:
        raise InvalidQuery("cursor: is not one of this hub") from exc
    if not isinstance(cursor, list) or not all(isinstance(part, str | int) for part in cursor):
        raise InvalidQuery("cursor: is not one of this hub")
    return cursor
