"""What Swift asks a memcached for, kept in the memory of its one proxy process; a filter of its pipeline."""

import json
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class MemoryCache:
    """The part of `swift.common.memcached.MemcacheRing` that is used; its arguments are named as there."""

    def __init__(self) -> None:
        self._values: dict[str, tuple[float, str]] = {}

    def get(self, key: str, raise_on_error: bool = False) -> Any:  # noqa: ARG002
        """Return what was set and has not expired, as it comes back from JSON."""
        until, value = self._values.get(key, (0.0, "null"))
        return json.loads(value) if until > time.time() else None

    def set(self, key: str, value: Any, time: float = 0, **_: Any) -> None:
        """Keep a value for some seconds."""
        self._values[key] = (_now() + (time or 3600), json.dumps(value))

    def incr(self, key: str, delta: int = 1, time: float = 0) -> int:
        """Count."""
        count = int(self.get(key) or 0) + delta
        self.set(key, count, time=time)
        return count

    def decr(self, key: str, delta: int = 1, time: float = 0) -> int:
        """Count down."""
        return self.incr(key, -delta, time)

    def delete(self, key: str, server_key: str | None = None) -> None:  # noqa: ARG002
        """Forget a value."""
        self._values.pop(key, None)

    def set_multi(self, mapping: Mapping[str, Any], server_key: str, **more: Any) -> None:  # noqa: ARG002
        """Keep several values."""
        for key, value in mapping.items():
            self.set(key, value, **more)

    def get_multi(self, keys: Iterable[str], server_key: str) -> list[Any]:  # noqa: ARG002
        """Return several values."""
        return [self.get(key) for key in keys]


def _now() -> float:
    return time.time()


def filter_factory(_global: Mapping[str, str], **_local: str) -> Callable[[Application], Application]:
    """Make the filter, as paste.deploy asks for it."""
    cache = MemoryCache()

    def wrap(application: Application) -> Application:
        def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
            environ["swift.cache"] = cache
            return application(environ, start_response)

        return answer

    return wrap
