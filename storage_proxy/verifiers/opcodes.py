"""What CPython would look up and call while it reads a pickle, found without doing any of it.

The machine keeps the stack, the marks and the memo as `Modules/_pickle.c` and `Lib/pickle.py` do (protocols 0 to 5,
https://docs.python.org/3/library/pickletools.html), with values reduced to what matters: is it a global, a known text, data, or
the result of a call. It stops where both implementations stop. Where they differ, or where a loader may differ (persistent
ids, buffers), it goes on: to see more than is reached is safe, to see less is not.
"""

import codecs
import io
import re
import sys
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from contextlib import suppress
from functools import partial
from typing import ClassVar

from storage_proxy.verifiers.pickle_stream import (
    EXTENSION,
    UNKNOWN,
    Broken,
    Budget,
    Ending,
    Kind,
    LimitReached,
    Memo,
    NamedGlobal,
    Pickle,
    Source,
    Value,
)

HIGHEST_PROTOCOL = 5
_LONGEST_NAME = 256  # of a module or a name; a longer text is `Kind.TEXT`
_MOST_TEXTS = 20_000  # that are told apart; what comes later is `Kind.TEXT`
_MOST_ENTRIES = 4 << 20  # on the stack
_MOST_MARKS = 1 << 20
_IN_MEMORY = 1 << 20  # bytes of a value that are read at once; a larger one is walked over
_SMALLEST_NESTED = 6
_START = 32  # opcodes that the beginning of a pickle counts for
_LONGEST_FRAME = 1 << 40  # a longer one is no frame: then this is no pickle
_NO_FRAME = -sys.maxsize  # offsets within a text that its escapes made longer may be below 0
_MOST_GLOBALS = 2000  # of one pickle

_STOP, _PROTO, _MEMOIZE, _BINPUT, _BINUNICODE, _SHORT_BINUNICODE = 0x2E, 0x80, 0x94, 0x71, 0x58, 0x8C

# A nested pickle that does something has EXT or STACK_GLOBAL in it, or GLOBAL or INST, which take two lines.
_BY_NUMBER_OR_STACK = re.compile(rb"[\x82-\x84\x93]")
# A module's name begins so. Behind a NUL anything may follow: the importer of frozen modules takes "os\0x" for os.
_IMPORTABLE = re.compile(r"[\w-]+([.\0].*)?", re.DOTALL)

_ARGUMENTS = {
    # Opcodes that push data and have an argument of fixed size, in bytes.
    # NONE NEWTRUE NEWFALSE EMPTY_LIST EMPTY_TUPLE EMPTY_DICT EMPTY_SET
    **dict.fromkeys(b"N\x88\x89])}\x8f", 0),
    **dict.fromkeys(b"K", 1),  # BININT1
    **dict.fromkeys(b"M", 2),  # BININT2
    **dict.fromkeys(b"J", 4),  # BININT
    **dict.fromkeys(b"G", 8),  # BINFLOAT
}
_FIXED = [_ARGUMENTS.get(code, -1) for code in range(256)]


class Machine:
    """Reads the pickles of a stream, one behind the other, and those inside their texts and bytes."""

    def __init__(
        self,
        source: Source,
        budget: Budget,
        report: Callable[[Pickle], None],
        words: AbstractSet[str],
        depth: int = 0,
    ) -> None:
        """Prepare.

        report: is told of each pickle that looks something up or has a proper end, in the order of their ends. words: texts
        that are told apart however many there are.
        """
        self._source = source
        self._budget = budget
        self._report = report
        self._words = words
        self._depth = depth
        self._texts: dict[str, str] = {}
        self._stack: list[Value] = []
        self._marks: list[int] = []
        self._memo = Memo()
        self._frame_end = _NO_FRAME
        self._pickle = Pickle(0)

    def run(self) -> None:
        """Read until something comes that is no pickle. Raises `LimitReached`."""
        while self._source.fill():
            pickle = self._pickle = Pickle(self._source.offset, depth=self._depth)
            self._stack, self._marks, self._memo, self._frame_end = [], [], Memo(), _NO_FRAME
            self._spend(_START)
            try:
                self._one()
                pickle.ending = Ending.STOP
            except Broken:
                pass
            finally:
                pickle.end = self._source.offset
                pickle.last = not self._source.fill()
                if pickle.ending is Ending.STOP or pickle.does_something:
                    self._report(pickle)
            if pickle.ending is Ending.BROKEN:
                return

    def _spend(self, opcodes: int) -> None:
        self._budget.opcodes -= opcodes
        if self._budget.opcodes < 0:
            raise LimitReached("a pickle has more opcodes than the limit")

    def _one(self) -> None:
        """Read one pickle up to its STOP."""
        source = self._source
        while True:
            self._spend(self._hurry() + 1)
            if len(self._stack) > _MOST_ENTRIES:
                raise LimitReached("a pickle piles up more values than the limit")
            start = source.offset
            code = source.take(1)[0]
            if code == _STOP:
                self._pickle.torn_frame |= source.offset < self._frame_end < source.offset + _LONGEST_FRAME
                self._pop()
                return
            if code == _PROTO and start == self._pickle.start:
                self._pickle.header = True
            step = _STEPS.get(code)
            if step is None:
                raise Broken
            frame_end = self._frame_end
            try:
                step(self)
            finally:
                # What lies across an end that no file reaches ends there for C and for Python.
                self._pickle.torn_frame |= start < frame_end < min(source.offset, start + _LONGEST_FRAME)

    def _hurry(self) -> int:  # noqa: C901 -- one branch for each opcode; a call for each would cost what this saves
        """Do the opcodes that most of a pickle is made of, as long as the piece at hand lasts; returns how many.

        They push a number or a short text, or remember it; all others wait for `_one`.
        """
        source, stack, memo, fixed, data = self._source, self._stack, self._memo, _FIXED, Kind.DATA
        buffer, at, done, fence = source.buffer, source.at, 0, self._fence()
        end = source.end
        if self._frame_end > source.offset:
            end = min(end, at + self._frame_end - source.offset)
        while at < end:
            code = buffer[at]
            if (width := fixed[code]) >= 0:
                after = at + 1 + width
                if after > end:
                    break
                stack.append(data)
            elif code == _MEMOIZE and len(stack) > fence:
                after = at + 1
                memo.append(stack[-1])
            elif code == _BINPUT and at + 1 < end and len(stack) > fence:
                after = at + 2
                memo.put(buffer[at + 1], stack[-1])
            elif code == _SHORT_BINUNICODE and at + 1 < end:
                after = at + 2 + buffer[at + 1]
                if after > end:
                    break
                stack.append(self._short_text(buffer[at + 2 : after]))
            elif code == _BINUNICODE and buffer[at + 2 : at + 5] == b"\0\0\0":
                after = at + 5 + buffer[at + 1]
                if after > end:
                    break
                stack.append(self._short_text(buffer[at + 5 : after]))
            else:
                break
            at = after
            done += 1
        source.at = at
        return done

    # The stack, cut off at the last mark.

    def _fence(self) -> int:
        return self._marks[-1] if self._marks else 0

    def _pop(self) -> Value:
        if len(self._stack) <= self._fence():
            raise Broken
        return self._stack.pop()

    def _top(self) -> Value:
        if len(self._stack) <= self._fence():
            raise Broken
        return self._stack[-1]

    def _pop_to_mark(self) -> list[Value]:
        if not self._marks:
            raise Broken
        mark = self._marks.pop()
        values = self._stack[mark:]
        del self._stack[mark:]
        return values

    def _mark(self) -> None:
        self._marks.append(len(self._stack))
        if len(self._marks) > _MOST_MARKS:
            raise LimitReached("a pickle piles up more marks than the limit")

    def _discard(self) -> None:
        if len(self._stack) > self._fence():
            self._stack.pop()
        else:
            self._pop_to_mark()

    def _duplicate(self) -> None:
        self._stack.append(self._top())

    def _join(self, count: int) -> None:
        """Make one value of the last ones."""
        for _ in range(count):
            self._pop()
        self._stack.append(Kind.DATA)

    def _join_to_mark(self) -> None:
        self._pop_to_mark()
        self._stack.append(Kind.DATA)

    def _add(self, count: int) -> None:
        """Take the last values into the one below them."""
        for _ in range(count):
            self._pop()
        self._change(self._top())

    def _add_to_mark(self) -> None:
        if self._pop_to_mark():
            self._change(self._top())
        else:
            self._top()

    # Data.

    def push_number(self, width: int) -> None:
        self._source.take(width)
        self._stack.append(Kind.DATA)

    def _number_line(self) -> None:
        self._source.line()
        self._stack.append(Kind.DATA)

    def _sized(self, width: int, *, signed: bool = False) -> int:
        size = int.from_bytes(self._source.take(width), "little", signed=signed)
        if not 0 <= size <= sys.maxsize:
            raise Broken
        return size

    def _target(self, size: int) -> int:
        """Return where so many bytes end. Raises `Broken` where this nested pickle ends before."""
        target = self._source.offset + size
        if self._source.limit is not None and target > self._source.limit:
            raise Broken
        return target

    def _long(self, width: int) -> None:
        self._source.go_to(self._target(self._sized(width, signed=width > 1)))
        self._stack.append(Kind.DATA)

    def _bytes(self, width: int) -> None:
        size = self._sized(width)
        target = self._target(size)
        if size <= _IN_MEMORY:
            self._nested(self._source.take(size))
        else:
            before = self._source.within(target)
            if self._source.fill() and self._goes_deeper(self._source.buffer[self._source.at :]):
                self._machine(self._source).run()
            self._source.within(before)
            self._source.go_to(target)
        self._stack.append(Kind.DATA)

    def _text(self, width: int, *, signed: bool = False, encoding: str = "utf-8") -> None:
        size = self._sized(width, signed=signed)
        target = self._target(size)
        raw = self._source.take(min(size, _IN_MEMORY))
        self._source.go_to(target)
        self._stack.append(self._known(raw, encoding) if size == len(raw) else Kind.TEXT)
        self._nested_text(raw)

    def _short_text(self, raw: bytes) -> Value:
        if len(raw) >= _SMALLEST_NESTED and (b"\n" in raw or not raw.isascii()):
            self._nested_text(raw)
        return self._known(raw, "utf-8")

    def _string_line(self) -> None:
        line = self._source.line().strip()
        if len(line) < 2 or line[0] != line[-1] or line[0] not in b"'\"":  # noqa: PLR2004 -- a pair of quotes
            raise Broken
        try:
            raw = codecs.escape_decode(line[1:-1])[0]
        except ValueError:
            raw = line[1:-1]
        self._stack.append(self._known(raw, "latin-1"))
        self._nested(raw)

    def _unicode_line(self) -> None:
        line = self._source.line()
        try:
            raw = line.decode("raw-unicode-escape").encode("utf-8", "surrogatepass")
        except UnicodeError:
            raw = line
        self._stack.append(self._known(raw, "utf-8"))
        self._nested_text(raw)

    def _known(self, raw: bytes, encoding: str) -> Value:
        """Return the text, if it may be told apart from others."""
        if len(raw) > _LONGEST_NAME:
            return Kind.TEXT
        try:
            text = raw.decode(encoding, "surrogatepass")
        except UnicodeError:
            return Kind.TEXT
        if len(self._texts) < _MOST_TEXTS or text in self._words:
            return self._texts.setdefault(text, text)
        return self._texts.get(text, Kind.TEXT)

    def _nested(self, raw: bytes) -> None:
        if len(raw) < _SMALLEST_NESTED:
            return
        worth = raw.count(b"\n") > 1 and (b"c" in raw or b"i" in raw)
        if (worth or _BY_NUMBER_OR_STACK.search(raw)) and self._goes_deeper(raw):
            self._machine(Source(io.BytesIO(raw), self._source.offset - len(raw))).run()

    def _nested_text(self, raw: bytes) -> None:
        self._nested(raw)
        if not raw.isascii():
            # How protocols 0 to 2 write bytes: as a text of the characters with their values.
            with suppress(UnicodeError):
                self._nested(raw.decode("utf-8", "ignore").encode("latin-1"))

    def _goes_deeper(self, raw: bytes) -> bool:
        if self._depth < self._budget.depth:
            return True
        if raw[:1] == b"\x80":
            raise LimitReached("pickles lie within one another deeper than the limit")
        return False

    def _machine(self, source: Source) -> "Machine":
        machine = Machine(source, self._budget, self._report, self._words, self._depth + 1)
        machine._texts = self._texts
        return machine

    # The memo.

    def _put(self, key: int) -> None:
        if key < 0:
            raise Broken
        self._memo.put(key, self._top())

    def _put_line(self) -> None:
        self._put(self._decimal())

    def _put_sized(self, width: int) -> None:
        self._put(self._sized(width))

    def _get_line(self) -> None:
        self._stack.append(self._memo.get(self._decimal()))

    def _get_sized(self, width: int) -> None:
        self._stack.append(self._memo.get(self._sized(width)))

    def _memoize(self) -> None:
        self._memo.append(self._top())

    def _decimal(self) -> int:
        try:
            return int(self._source.line().partition(b"\0")[0])  # C's number ends with a NUL
        except ValueError:
            raise Broken from None

    # Globals and calls.

    def _name(self, module: str, name: str, *, computed: bool = False) -> None:
        """Look a global up, as the unpickler does at once: that imports its module."""
        pickle = self._pickle
        if not pickle.header and not (computed or _IMPORTABLE.fullmatch(module)):
            raise Broken  # no module has that name, and so text is text
        found = pickle.globals.get((module, name))
        if found is None:
            if len(pickle.globals) >= _MOST_GLOBALS:
                raise LimitReached("a pickle names more globals than the limit")
            found = NamedGlobal(module, name, self._source.offset, computed)
            pickle.globals[module, name] = found
        self._stack.append(found)

    def _global(self) -> None:
        module, name = self._source.line(), self._source.line()
        try:
            self._name(module.decode(), name.decode())
        except UnicodeDecodeError:
            raise Broken from None

    def _stack_global(self) -> None:
        name, module = self._pop(), self._pop()
        if Kind.DATA in (name, module):
            raise Broken  # it has to be two texts
        known = isinstance(name, str) and isinstance(module, str)
        self._name(
            module if isinstance(module, str) else UNKNOWN,
            name if isinstance(name, str) else UNKNOWN,
            computed=not known,
        )

    def _extension(self, width: int) -> None:
        code = int.from_bytes(self._source.take(width), "little", signed=width > 2)  # noqa: PLR2004 -- EXT4 is signed
        if code <= 0:
            raise Broken
        self._name(EXTENSION, str(code), computed=True)

    def _call(self, function: Value) -> None:
        if isinstance(function, NamedGlobal):
            function.called = True
        elif function is Kind.RESULT:
            self._pickle.calls_result = True
        else:
            raise Broken  # data cannot be called
        self._stack.append(Kind.RESULT)

    def _change(self, target: Value) -> None:
        if isinstance(target, NamedGlobal):
            target.called = target.changed = True

    def _apply(self, arguments: int) -> None:
        """Call what lies below so many values."""
        for _ in range(arguments):
            self._pop()
        self._call(self._pop())

    def _instance(self) -> None:
        self._global()
        function = self._pop()
        self._pop_to_mark()
        self._call(function)

    def _object(self) -> None:
        values = self._pop_to_mark()
        if not values:
            raise Broken
        self._call(values[0])

    def _persistent_line(self) -> None:
        self._source.line()
        self._stack.append(Kind.RESULT)

    def _persistent(self) -> None:
        self._pop()
        self._stack.append(Kind.RESULT)

    def _next_buffer(self) -> None:
        self._stack.append(Kind.DATA)  # bytes that lie beside the pickle

    def _protocol(self) -> None:
        if self._source.take(1)[0] > HIGHEST_PROTOCOL:
            raise Broken

    def _frame(self) -> None:
        # Python refuses what lies across the end of a frame. C reading from a file drops the part within the frame, or
        # does not, by the kind of file; nobody writes such a pickle but to let readers disagree.
        if self._source.offset + _LONGEST_FRAME <= self._frame_end:
            # C ended at that frame, whose bytes are not there; Python ends here, before the end of it.
            raise Broken
        self._pickle.torn_frame |= self._source.offset <= self._frame_end
        self._frame_end = self._sized(8) + self._source.offset

    STEPS: ClassVar[dict[str, Callable[["Machine"], object]]] = {
        "(": _mark,  # MARK
        "0": _discard,  # POP
        "1": _pop_to_mark,  # POP_MARK
        "2": _duplicate,  # DUP
        "F": _number_line,  # FLOAT
        "I": _number_line,  # INT
        "L": _number_line,  # LONG
        "\x8a": partial(_long, width=1),  # LONG1
        "\x8b": partial(_long, width=4),  # LONG4
        "S": _string_line,  # STRING
        "T": partial(_text, width=4, signed=True, encoding="latin-1"),  # BINSTRING
        "U": partial(_text, width=1, encoding="latin-1"),  # SHORT_BINSTRING
        "V": _unicode_line,  # UNICODE
        "X": partial(_text, width=4),  # BINUNICODE
        "\x8c": partial(_text, width=1),  # SHORT_BINUNICODE
        "\x8d": partial(_text, width=8),  # BINUNICODE8
        "B": partial(_bytes, width=4),  # BINBYTES
        "C": partial(_bytes, width=1),  # SHORT_BINBYTES
        "\x8e": partial(_bytes, width=8),  # BINBYTES8
        "\x96": partial(_bytes, width=8),  # BYTEARRAY8
        "t": _join_to_mark,  # TUPLE
        "l": _join_to_mark,  # LIST
        "d": _join_to_mark,  # DICT
        "\x91": _join_to_mark,  # FROZENSET
        "\x85": partial(_join, count=1),  # TUPLE1
        "\x86": partial(_join, count=2),  # TUPLE2
        "\x87": partial(_join, count=3),  # TUPLE3
        "a": partial(_add, count=1),  # APPEND
        "s": partial(_add, count=2),  # SETITEM
        "b": partial(_add, count=1),  # BUILD
        "e": _add_to_mark,  # APPENDS
        "u": _add_to_mark,  # SETITEMS
        "\x90": _add_to_mark,  # ADDITEMS
        "p": _put_line,  # PUT
        "q": partial(_put_sized, width=1),  # BINPUT
        "r": partial(_put_sized, width=4),  # LONG_BINPUT
        "\x94": _memoize,  # MEMOIZE
        "g": _get_line,  # GET
        "h": partial(_get_sized, width=1),  # BINGET
        "j": partial(_get_sized, width=4),  # LONG_BINGET
        "c": _global,  # GLOBAL
        "\x93": _stack_global,  # STACK_GLOBAL
        "\x82": partial(_extension, width=1),  # EXT1
        "\x83": partial(_extension, width=2),  # EXT2
        "\x84": partial(_extension, width=4),  # EXT4
        "R": partial(_apply, arguments=1),  # REDUCE
        "\x81": partial(_apply, arguments=1),  # NEWOBJ
        "\x92": partial(_apply, arguments=2),  # NEWOBJ_EX
        "i": _instance,  # INST
        "o": _object,  # OBJ
        "P": _persistent_line,  # PERSID
        "Q": _persistent,  # BINPERSID
        "\x97": _next_buffer,  # NEXT_BUFFER
        "\x98": _top,  # READONLY_BUFFER
        "\x80": _protocol,  # PROTO
        "\x95": _frame,  # FRAME
    }


_STEPS: dict[int, Callable[[Machine], object]] = {ord(code): step for code, step in Machine.STEPS.items()}
_STEPS |= {code: partial(Machine.push_number, width=width) for code, width in _ARGUMENTS.items()}
