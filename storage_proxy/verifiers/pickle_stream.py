"""What the pickle machine reads from, what it remembers, and what it tells."""

import enum
import errno
import io
from dataclasses import dataclass, field
from typing import BinaryIO

from storage_proxy.verifiers.policy import Limits

_CHUNK = 1 << 16
_LONGEST_LINE = 1 << 16  # of a line's argument so much is kept
_MOST_TELLING = 1 << 18  # memo entries that are a global, a known text or have a sparse key
_DENSE = 32 << 20  # memo keys below are kept as one byte each

EXTENSION = "the extension registry"
"""Stands for the module of a global that is named by a number (`copyreg.add_extension`)."""
UNKNOWN = "?"
"""Stands for the module or name of a global that is put together while the pickle is read."""


class Broken(Exception):
    """No unpickler goes on from here."""


class LimitReached(Exception):
    """A cap was reached; what follows was not looked at."""


class Kind(enum.IntEnum):
    """What is known of a value that is neither a global nor a short text."""

    ABSENT = 0
    DATA = 1  # neither a text nor anything that can be called
    TEXT = 2
    RESULT = 3  # came out of a call or from the loader: may be anything


@dataclass(eq=False)
class NamedGlobal:
    """A global that the pickle names, and with that imports.

    computed: what it is called cannot be read off the pickle. called: something is done with it. changed: namely put into.
    """

    module: str
    name: str
    offset: int
    computed: bool = False
    called: bool = False
    changed: bool = False


Value = Kind | str | NamedGlobal


@dataclass
class Budget:
    """What all pickles within one file may cost together."""

    opcodes: int
    depth: int

    @classmethod
    def of(cls, limits: Limits) -> "Budget":
        """Return the budget for one file."""
        return cls(limits.opcodes, limits.depth)


class Ending(enum.Enum):
    """How a pickle ended: by its STOP, or because no unpickler goes on."""

    STOP = enum.auto()
    BROKEN = enum.auto()


@dataclass
class Pickle:
    """What one pickle of a stream does. Offsets in bytes from where the stream was when its examination began.

    header: begins with PROTO, as all do that Python writes in protocols 2 to 5. last: nothing comes behind it.
    calls_result: calls what an earlier call returned. torn_frame: something lies across the end of a frame, which
    unpicklers read differently.
    """

    start: int
    end: int = 0
    depth: int = 0
    ending: Ending = Ending.BROKEN
    header: bool = False
    last: bool = False
    calls_result: bool = False
    torn_frame: bool = False
    globals: dict[tuple[str, str], NamedGlobal] = field(default_factory=dict)

    @property
    def does_something(self) -> bool:
        """Whether reading it has an effect, if only that a module is imported."""
        return bool(self.globals) or self.calls_result or self.torn_frame

    @property
    def calls(self) -> bool:
        """Whether reading it calls something: no text does that by chance."""
        return self.calls_result or any(named.called for named in self.globals.values())


class Source:
    """A stream that is read forward, in pieces; large parts are jumped over where it can seek."""

    def __init__(self, stream: BinaryIO, base: int = 0) -> None:
        self._stream = stream
        self._jumps = stream.seekable()
        self._origin = stream.tell() if self._jumps else 0
        self._limit: int | None = None
        self._origin -= base
        self._base = base  # the offset of `buffer`
        self.buffer = b""
        self.at = 0  # in `buffer`
        self.end = 0  # in `buffer`: its end, or that of the part that is read

    @property
    def offset(self) -> int:
        """Bytes from the beginning."""
        return self._base + self.at

    def fill(self) -> bool:
        """Have at least one byte; False at the end."""
        if self.at < self.end:
            return True
        if self._limit is not None and self.offset >= self._limit:
            return False
        self._base += self.at
        self.buffer = self.buffer[self.at :] or self._stream.read(_CHUNK)
        self.at = 0
        self._trim()
        return self.end > 0

    def take(self, count: int) -> bytes:
        """Return exactly so many bytes, few. Raises `Broken` at the end."""
        parts = []
        while count:
            if not self.fill():
                raise Broken
            step = min(count, self.end - self.at)
            parts.append(self.buffer[self.at : self.at + step])
            self.at += step
            count -= step
        return b"".join(parts)

    def line(self) -> bytes:
        """Return the bytes up to the next line feed, at most `_LONGEST_LINE` of them, and go behind it.

        Without one CPython takes all there is for a line and drops its last byte.
        """
        kept = b""
        while self.fill():
            found = self.buffer.find(b"\n", self.at, self.end)
            stop = self.end if found < 0 else found
            kept = kept + self.buffer[self.at : stop] if len(kept) <= _LONGEST_LINE else kept
            self.at = stop
            if found >= 0:
                self.at += 1
                return kept[:_LONGEST_LINE]
        return kept[:-1][:_LONGEST_LINE]

    def go_to(self, offset: int) -> None:
        """Go forward. The end of the stream may lie before; then nothing is left."""
        if offset - self._base <= self.end:
            self.at = offset - self._base
        elif self._jumps:
            try:
                self._stream.seek(self._origin + offset)
            except (OSError, OverflowError, ValueError) as exc:
                # A length that no file system has: what is there ends before.
                if isinstance(exc, OSError) and exc.errno not in {errno.EINVAL, errno.EOVERFLOW}:
                    raise
                self._stream.seek(0, io.SEEK_END)
            self.buffer, self._base, self.at, self.end = b"", offset, 0, 0
        else:
            while self.offset < offset and self.fill():
                self.at += min(offset - self.offset, self.end - self.at)

    def within(self, limit: int | None) -> int | None:
        """Let the stream end at an offset; returns where it ended before."""
        before, self._limit = self._limit, limit
        self._trim()
        return before

    @property
    def limit(self) -> int | None:
        """Where the stream ends for its readers; None is its own end."""
        return self._limit

    def _trim(self) -> None:
        self.end = len(self.buffer)
        if self._limit is not None:
            self.end = max(self.at, min(self.end, self._limit - self._base))


_KINDS = tuple(Kind)


class Memo:
    """The memo: one byte for each dense key, and beside them the few values that tell something."""

    def __init__(self) -> None:
        self._kinds = bytearray()
        self._present = 0
        self._telling: dict[int, Value] = {}

    def put(self, key: int, value: Value) -> None:
        """Set a key. Raises `LimitReached` for more sparse or telling keys than an honest pickle has."""
        kinds = self._kinds
        if 0 <= key < _DENSE and key < len(kinds) + _CHUNK:
            if key >= len(kinds):
                kinds.extend(bytes(key + 1 - len(kinds)))
            self._present += not kinds[key] and key not in self._telling
            if isinstance(value, Kind):
                kinds[key] = value
                self._telling.pop(key, None)
                return
            kinds[key] = Kind.TEXT
        else:
            self._present += key not in self._telling
        self._telling[key] = value
        if len(self._telling) > _MOST_TELLING:
            raise LimitReached("a pickle remembers more values than the limit")

    def get(self, key: int) -> Value:
        """Return a value. Raises `Broken` for a key that was never set."""
        if key in self._telling:
            return self._telling[key]
        if 0 <= key < len(self._kinds) and self._kinds[key]:
            return _KINDS[self._kinds[key]]
        raise Broken

    def append(self, value: Value) -> None:
        """Set the key that is the number of keys."""
        if isinstance(value, Kind) and self._present == len(self._kinds) < _DENSE:
            self._kinds.append(value)
            self._present += 1
        else:
            self.put(self._present, value)
