"""How the commands write: for people on a terminal, as plain lines in a pipe, as JSON for programs."""

import json
import os
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import datetime

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

# Wide enough that nothing is folded: the reader of a pipe decides about lines.
_PIPE_WIDTH = 10_000
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
_MINUTE, _HOUR = 60, 3600


def console(*, stderr: bool = False) -> Console:
    """Return a console that colours on a terminal only (never with NO_COLOR) and takes every text literally."""
    stream = sys.stderr if stderr else sys.stdout
    terminal = stream.isatty()
    return Console(
        file=stream,
        force_terminal=terminal,
        color_system=None if os.environ.get("NO_COLOR") else "auto",  # None: nothing bold either
        width=None if terminal else _PIPE_WIDTH,
        markup=False,
        emoji=False,
        highlight=False,
        soft_wrap=True,
    )


def shows_bars(stream: Console) -> bool:
    """Whether a progress bar can move on this console."""
    return stream.is_terminal and not stream.is_dumb_terminal


def plain(text: object) -> str:
    r"""Return the text with every character escaped that could steer a terminal or hide (`\x1b`, `\u202e`)."""
    return "".join(
        character.encode("unicode_escape").decode()
        if unicodedata.category(character) in _HIDDEN
        else character
        for character in str(text)
    )


def error(message: str) -> None:
    """Write one error on stderr; further lines of the message are indented."""
    first, *others = message.split("\n")
    out = console(stderr=True)
    out.print(Text.assemble(("Error: ", "bold red"), plain(first)))
    for line in others:
        out.print(Text(f"  {plain(line)}"))


def note(message: object) -> None:
    """Write one line on stderr, for people, beside what a program may read from stdout."""
    console(stderr=True).print(Text(plain(message)))


def print_json(document: object) -> None:
    """Write one JSON document on stdout; control characters are escaped by JSON's own rules."""
    sys.stdout.write(json.dumps(document, indent=2) + "\n")
    sys.stdout.flush()


def print_table(
    titles: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    right: Sequence[str] = (),
    spare: Sequence[str] = (),
) -> None:
    """Write an aligned table on stdout; the columns named in `right` hold numbers. Long lines are never cut.

    spare: the columns that a terminal which is too narrow goes without, one after the other.
    """
    out = console()
    columns = list(zip(titles, *([plain(cell) for cell in row] for row in rows), strict=True))
    for title in spare:
        if sum(max(map(cell_len, column)) + 2 for column in columns) - 2 <= out.width:
            break
        columns = [column for column in columns if column[0] != title]
    widths = [max(map(cell_len, column)) for column in columns]
    titles, *cells = zip(*columns, strict=True)
    for number, row in enumerate([titles, *cells]):
        padded = [
            padding + cell if title in right else cell + padding
            for title, cell, width in zip(titles, row, widths, strict=True)
            for padding in [" " * (width - cell_len(cell))]
        ]
        out.print(Text("  ".join(padded).rstrip(), style="bold" if number == 0 else ""))


def print_facts(facts: Iterable[tuple[str, object]]) -> None:
    """Write `name  value` lines on stdout, aligned; facts without a value are left out."""
    shown = [(name, plain(value)) for name, value in facts if value is not None]
    width = max((len(name) for name, _value in shown), default=0)
    out = console()
    for name, value in shown:
        out.print(Text.assemble((f"{name:<{width}}", "bold"), "  ", value))


def human_size(size: float | None) -> str:
    """Write bytes in binary units: `612 B`, `1.4 KiB`, `25.0 MiB`; None is `-`."""
    if size is None:
        return "-"
    units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]
    value = float(size)
    # 1023.96 KiB would be rounded to 1024.0 KiB, which is 1.0 MiB.
    while round(value, 1) >= 1024 and len(units) > 1:  # noqa: PLR2004 -- the step between binary units
        value /= 1024
        units.pop(0)
    return f"{value:.0f} {units[0]}" if units[0] == "B" else f"{value:.1f} {units[0]}"


def human_duration(seconds: float) -> str:
    """Write a duration: `0.8 s`, `42 s`, `3:07 min`, `1:02:09 h`."""
    whole = round(seconds)
    if seconds < 10:  # noqa: PLR2004 -- below that a tenth tells
        return f"{seconds:.1f} s"
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE}:{whole % _MINUTE:02} min"
    return f"{whole // _HOUR}:{whole % _HOUR // _MINUTE:02}:{whole % _MINUTE:02} h"


def moment(text: str) -> datetime:
    """Read a time of the API in this machine's time zone."""
    return datetime.fromisoformat(text).astimezone()


def local_time(text: str | None) -> str:
    """Write a time of the API in this machine's time zone; None is `-`, and what is no time is shown as it came."""
    if text is None:
        return "-"
    try:
        return moment(text).strftime("%Y-%m-%d %H:%M:%S")
    except ValueError:
        return text
