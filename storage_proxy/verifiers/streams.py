"""What content is read through: a part of a file, and what a compressed stream unpacks to. Bounded, whatever the content says."""

import bz2
import io
import lzma
import time
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO, Protocol, cast

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

KEPT = 1 << 20
"""Bytes of unpacked content that can be gone back to without unpacking it again."""

_CHUNK = 1 << 16
_LARGEST_DICTIONARY = 96 << 20


class Broken(Exception):
    """The content breaks the rules of its own format; what follows the break was not looked at."""


class LimitReached(Exception):
    """A cap was reached; what is left was not looked at."""


class Bomb(LimitReached):
    """The content unpacks to far more than it is."""


class Budget:
    """What the examination of one file may cost in all, however its containers nest.

    `unpacked` and `members` count down (bytes, members); `seconds` from now on. `ratio` is the most that `1` byte may
    unpack to, above `ratio_from` bytes. Raises `LimitReached` where something is used up.
    """

    def __init__(
        self, *, unpacked: int, members: int, seconds: float, ratio: int, ratio_from: int = 1 << 20
    ) -> None:
        self._unpacked = unpacked
        self._members = members
        self._seconds = seconds
        self._deadline = time.monotonic() + seconds
        self._ratio = ratio
        self._ratio_from = ratio_from

    def check_time(self) -> None:
        """Raise once the time is used up; later calls raise as well."""
        if time.monotonic() > self._deadline:
            raise LimitReached(f"not examined to the end within {self._seconds:g} s")

    @property
    def seconds_left(self) -> float:
        """Time left, in seconds; not negative."""
        return max(0.0, self._deadline - time.monotonic())

    def take_members(self, count: int) -> None:
        """Count members of containers."""
        self._members -= count
        if self._members < 0:
            raise LimitReached("more members in containers than the limit")

    def take_unpacked(self, count: int, packed: int, unpacked: int) -> None:
        """Count `count` more bytes of a stream of which `packed` bytes have become `unpacked`."""
        self.check_time()
        self._unpacked -= count
        if self._unpacked < 0:
            raise LimitReached("unpacks to more bytes than the limit")
        if unpacked > self._ratio_from and unpacked > packed * self._ratio:
            raise Bomb(f"unpacks to more than {self._ratio} times its size")


class Slice(io.RawIOBase):
    """`size` bytes of a seekable stream from `start` on, as a stream of its own. Others may move the position of `base`."""

    def __init__(self, base: BinaryIO, start: int, size: int) -> None:
        self._base = base
        self._start = start
        self._size = size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, origin + offset)
        return self._at

    def readinto(self, target: "WriteableBuffer") -> int:
        view = memoryview(target).cast("B")
        wanted = min(len(view), self._size - self._at)
        if wanted <= 0:
            return 0
        self._base.seek(self._start + self._at)
        data = self._base.read(wanted)
        view[: len(data)] = data
        self._at += len(data)
        return len(data)


class Decoder(Protocol):
    """One compressed stream, unpacked piece by piece."""

    @property
    def eof(self) -> bool:
        """Whether the stream has ended."""

    @property
    def needs_input(self) -> bool:
        """Whether nothing more comes without more input."""

    @property
    def unused_data(self) -> bytes:
        """Input after the end of the stream."""

    def decompress(self, data: bytes, max_length: int = -1, /) -> bytes:
        """Return at most `max_length` bytes."""


class _Zlib:
    """zlib's decompressor with the interface of the other two."""

    def __init__(self, window: int) -> None:
        self._decoder = zlib.decompressobj(window)
        self._fault: zlib.error | None = None

    @property
    def eof(self) -> bool:
        return self._decoder.eof

    @property
    def needs_input(self) -> bool:
        return not self._decoder.unconsumed_tail and self._fault is None

    @property
    def unused_data(self) -> bytes:
        return self._decoder.unused_data

    def decompress(self, data: bytes, max_length: int = -1, /) -> bytes:
        if self._fault is not None:
            raise self._fault
        data = self._decoder.unconsumed_tail + data
        before = self._decoder.copy()
        try:
            return self._decoder.decompress(data, max_length)
        except zlib.error as exc:
            # Readers that take smaller pieces, or leave the checksum to the end, get what comes before the fault.
            self._decoder, self._fault = before, exc
            if rescued := self._rescue(data, max_length):
                return rescued
            raise

    def _rescue(self, data: bytes, max_length: int) -> bytes:
        """Return what comes before the fault in `data`."""
        rescued = b""
        at, step = 0, len(data)
        while step and len(rescued) < max_length:
            trial = self._decoder.copy()
            try:
                rescued += trial.decompress(data[at : at + step])
            except zlib.error:
                step //= 2
            else:
                self._decoder = trial
                at += step
        return rescued


def raw_deflate() -> Decoder:
    """DEFLATE as in zip members (RFC 1951)."""
    return _Zlib(-zlib.MAX_WBITS)


def zlib_stream() -> Decoder:
    """RFC 1950."""
    return _Zlib(zlib.MAX_WBITS)


def gzip_stream() -> Decoder:
    """RFC 1952, one member."""
    return _Zlib(zlib.MAX_WBITS | 16)


def bzip2_stream() -> Decoder:
    """One bzip2 stream."""
    return bz2.BZ2Decompressor()


def xz_stream() -> Decoder:
    """One xz or lzma-alone stream; a dictionary larger than 96 MiB is an error."""
    return lzma.LZMADecompressor(memlimit=_LARGEST_DICTIONARY)


class Unpacked(io.RawIOBase):
    """What a compressed stream unpacks to. Reading never raises: it ends where something is wrong, and `failure` says what.

    So whoever reads sees everything that a careless reader would have seen before the break. Going back further than
    `KEPT` bytes unpacks again from the beginning, at the budget's cost. `several`: streams may follow each other (gzip, bzip2, xz).
    """

    def __init__(
        self, packed: BinaryIO, decoder: Callable[[], Decoder], budget: Budget, *, several: bool = False
    ) -> None:
        self.failure: Exception | None = None
        self.rest = 0
        """Bytes found behind the end of the stream; at least 1 if there are any."""
        self.checksum = 0
        """CRC-32 of everything that was unpacked."""
        self._summed = 0
        self._packed = packed
        self._decoder_of = decoder
        self._budget = budget
        self._several = several
        self._at = 0
        self._restart()

    def _restart(self) -> None:
        self._packed.seek(0)
        self._magic = self._packed.read(2)
        self._packed.seek(0)
        self._decoder: Decoder | None = self._decoder_of()
        self._fed = 0
        self._produced = 0
        self._kept = bytearray()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_END:
            while self._unpack():
                pass
            origin = self._produced
        else:
            origin = self._at if whence == io.SEEK_CUR else 0
        self._at = max(0, origin + offset)
        return self._at

    def readinto(self, target: "WriteableBuffer") -> int:
        view = memoryview(target).cast("B")
        if self._at < self._produced - len(self._kept) and self.failure is None:
            self._restart()
        while self._at >= self._produced and self._unpack():
            pass
        begin = self._at - (self._produced - len(self._kept))
        if begin < 0:
            return 0
        with memoryview(self._kept) as kept:
            piece = kept[begin : begin + len(view)]
            view[: len(piece)] = piece
            self._at += len(piece)
            return len(piece)

    def _unpack(self) -> bool:
        """Unpack one more piece; False where there is none."""
        if self._decoder is None or self.failure is not None:
            return False
        try:
            return self._step(self._decoder)
        except (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError, MemoryError) as exc:
            self.failure = Broken(f"the compressed stream is broken ({type(exc).__name__})")
        except (Broken, LimitReached) as exc:
            self.failure = exc
        return False

    def _step(self, decoder: Decoder) -> bool:
        data = b""
        if decoder.needs_input:
            data = self._packed.read(_CHUNK)
            self._fed += len(data)
        piece = decoder.decompress(data, _CHUNK)
        self._produced += len(piece)
        if self._produced > self._summed:
            self.checksum = zlib.crc32(piece[self._summed - self._produced :], self.checksum)
            self._summed = self._produced
        self._kept += piece
        if len(self._kept) > 2 * KEPT:
            del self._kept[:-KEPT]
        self._budget.take_unpacked(len(piece), self._fed, self._produced)
        if decoder.eof:
            self._next_stream(decoder.unused_data)
        elif not data and not piece:
            raise Broken("the compressed stream ends too early")
        return True

    def _next_stream(self, unused: bytes) -> None:
        """Go on behind the end of one stream: at another one, at padding, or at bytes that do not belong."""
        self._decoder = None
        behind = self._packed.tell() - len(unused)
        self._packed.seek(behind)
        head = self._packed.read(_CHUNK)
        if not head.strip(b"\0"):
            while chunk := self._packed.read(_CHUNK):
                self._budget.check_time()
                if chunk.strip(b"\0"):
                    self.rest = 1
                    return
            return
        if self._several:
            self._packed.seek(behind)
            self._fed -= len(unused)
            self._decoder = self._decoder_of()
            if head[:2] != self._magic:
                self._decoder, self.rest = None, 1
        else:
            self.rest = len(head)


def buffered(raw: io.RawIOBase) -> BinaryIO:
    """Return a buffered reader over `raw`."""
    return cast("BinaryIO", io.BufferedReader(raw, _CHUNK))
