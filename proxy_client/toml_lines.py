"""Where each table and key of a TOML document stands; the standard library's parser does not tell."""

import re
import tomllib
from collections.abc import Iterator, Mapping

Path = tuple[str | int, ...]

_SPACE = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_BLANK = re.compile(r"[ \t]*")
_KEY = re.compile(r"""[A-Za-z0-9_-]+|"(?:\\.|[^"\\\n])*"|'[^'\n]*'""")
_DOT = re.compile(r"[ \t]*\.[ \t]*")
# Strings, of which the long ones come first, then comments, brackets and the end of the line.
_TOKEN = re.compile(
    r'''"""(?:\\.|[^\\])*?"{3,5}|\'\'\'.*?'{3,5}|"(?:\\.|[^"\\\n])*"|'[^'\n]*'|#[^\n]*|[\[\]{}\n]''',
    re.DOTALL,
)


def find_lines(text: str) -> Mapping[Path, int]:
    """Return the line (the first is 1) of every table and key by its path.

    A path holds keys as they are meant, unquoted, and the number of an element in an array of tables. What stands
    inside an inline table or an array has no line of its own: see `line_of`. `text` is valid TOML 1.0.
    """
    lines: dict[Path, int] = {}
    elements: dict[Path, int] = {}
    table: Path = ()
    for at, path, brackets in _statements(text):
        line = text.count("\n", 0, at) + 1
        if brackets:
            table = _numbered(path, elements)
            if brackets == 2:  # noqa: PLR2004 -- [[…]]
                elements[table] = elements.get(table, -1) + 1
                table = (*table, elements[table])
            where = table
        else:
            where = (*table, *path)
        for depth in range(1, len(where) + 1):
            lines.setdefault(where[:depth], line)
        if brackets:
            lines[where] = line  # a table that a deeper one named before
    return lines


def line_of(lines: Mapping[Path, int], path: Path) -> int | None:
    """Return the line of a path, else that of the nearest table around it; None if the document names neither."""
    return next((lines[path[:depth]] for depth in range(len(path), 0, -1) if path[:depth] in lines), None)


def _statements(text: str) -> Iterator[tuple[int, tuple[str, ...], int]]:
    """Yield for each header and each key: its offset, its keys, and the header's number of brackets or 0."""
    at = _skip(_SPACE, text, 0)
    while at < len(text):
        start = at
        brackets = 2 if text.startswith("[[", at) else int(text[at] == "[")
        path, at = _keys(text, at + brackets)
        yield start, path, brackets
        if not brackets:
            at = _after_value(text, at)
        at = _skip(_SPACE, text, at + brackets)


def _keys(text: str, at: int) -> tuple[tuple[str, ...], int]:
    keys: list[str] = []
    while True:
        found = _KEY.match(text, _skip(_BLANK, text, at))
        if found is None:
            raise ValueError(f"no key at offset {at}: this is no valid TOML")
        raw = found[0]
        keys.append(tomllib.loads(f"key = {raw}")["key"] if raw[0] in "\"'" else raw)
        dot = _DOT.match(text, found.end())
        if dot is None:
            return tuple(keys), _skip(_BLANK, text, found.end())
        at = dot.end()


def _after_value(text: str, at: int) -> int:
    depth = 0
    for token in _TOKEN.finditer(text, at):
        match token[0]:
            case "[" | "{":
                depth += 1
            case "]" | "}":
                depth -= 1
            case "\n" if depth == 0:
                return token.end()
    return len(text)


def _numbered(path: tuple[str, ...], elements: Mapping[Path, int]) -> Path:
    """Write the number of its present element after each array of tables that the path leads through."""
    full: Path = ()
    for depth, key in enumerate(path, start=1):
        full = (*full, key)
        if depth < len(path) and full in elements:
            full = (*full, elements[full])
    return full


def _skip(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    return found.end() if found else at
