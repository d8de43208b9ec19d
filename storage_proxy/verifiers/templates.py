"""Chat templates: Jinja code that a stranger wrote and that many programs render outside a sandbox.

A template gets at Python through the names with two underscores of its objects. Ordinary chat templates have no use for
those names, in any spelling, nor for the filters and statements that reach attributes and files by computed names.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from storage_proxy.verifiers.examination import Content

_OPENING = re.compile(r"\{([{%#])")
_CLOSING = {"{": "}}", "%": "%}", "#": "#}"}
_TOKEN = re.compile(
    r"""(?P<string>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")|(?P<name>[^\W\d]\w*)|(?P<close>[-+]?(?:\}\}|%\}))|(?P<other>\\.|.)""",
    re.DOTALL,
)
_DUNDER = re.compile(r"__[a-z]\w*?__|__[a-z]+\w*|\b\w*[a-z]__\b")
_WHOLE_DUNDER = re.compile(r"__[a-z][a-z0-9_]*?__", re.IGNORECASE)
_OBJECTS: tuple[object, ...] = (
    object,
    type,
    len,
    re.compile,
    re,
    re.Match,
    property,
    iter(()),
    "",
    {},
    OSError(),
)
_OF_PYTHON = frozenset(name for thing in _OBJECTS for name in dir(thing)) | {
    *("__builtins__", "__import__", "__subclasses__", "__mro__", "__bases__", "__wrapped__", "__closure__"),
}
"""Names that Python's own objects have; of those in texts only these reach anything."""
_CHARACTER_FORMAT = re.compile(r"%(?:\(\w*\))?[-+ #0-9.]*c|\{[^{}]*:[^{}]*c\}")
_ESCAPE = re.compile(
    r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{1,3})|N\{([^}]{0,88})\}|(.))",
    re.DOTALL,
)
_LARGEST_CHARACTER = 0x10FFFF
_STATEMENTS = frozenset({"include", "import", "extends", "from"})
_REACHING = frozenset(
    {"attr", "getattr", "popen", "subprocess", "builtins", "import_module", "eval", "exec", "mro", "os"}
)
_REWRITING = frozenset(
    {"lower", "upper", "swapcase", "title", "capitalize", "reverse", "replace", "translate", "fromhex"}
)
_GADGETS = frozenset({"lipsum", "cycler", "joiner", "get_flashed_messages", "url_for"})
_MARKS = ("{%", "{{")


def looks_like_template(text: str) -> bool:
    """Whether text holds Jinja code."""
    return any(mark in text for mark in _MARKS)


@dataclass
class _Code:
    """The code of a template: names, strings (escapes resolved) and statements, in their order."""

    names: list[tuple[str, str]] = field(default_factory=list)
    """Each name with the last character before it that is no space."""
    strings: list[str] = field(default_factory=list)
    statements: list[str] = field(default_factory=list)
    joined_underscores: bool = False
    rewritten: bool = False
    """Whether a string of the template's own is changed before it is used, or underscores get a name."""


def examine_template(text: str, content: Content, where: str) -> None:
    """Note what in the template reaches beyond what it is given. `where` says which template of the file it is."""
    code = _read(text)
    for name, before in code.names:
        if _WHOLE_DUNDER.fullmatch(name):
            _block(content, where, f"uses the name {name}")
        elif name in _REACHING and before in {".", "|"}:
            _block(content, where, f"reaches for {name}")
        elif name in _GADGETS or (name.startswith("_") and before == "."):
            _flag(content, where, f"uses {name}")
    _examine_strings(code, content, where)
    if code.rewritten:
        _flag(content, where, "changes a text of its own, which may become a name with two underscores")
    for statement in code.statements:
        if statement in _STATEMENTS:
            _flag(content, where, f"loads another template ({statement})")


def _examine_strings(code: _Code, content: Content, where: str) -> None:
    for string in code.strings:
        if whole := _WHOLE_DUNDER.findall(string):
            spelled = {word for name in map(str.lower, whole) for word in (name, name[::-1])}
            note = _flag if _OF_PYTHON.isdisjoint(spelled) else _block
            note(content, where, f"spells a name with two underscores: {string[:80]}")
        elif _CHARACTER_FORMAT.search(string):
            _flag(content, where, f"makes characters of numbers: {string[:80]}")
        elif _DUNDER.search(string) or re.fullmatch(r"__+", string):
            _flag(content, where, f"spells part of a name with two underscores: {string[:80]}")
    if code.joined_underscores or _WHOLE_DUNDER.search("".join(code.strings)):
        _flag(content, where, "puts a name together from underscores")


def _block(content: Content, where: str, what: str) -> None:
    content.block("template-injection", "template", f"{where} {what}")


def _flag(content: Content, where: str, what: str) -> None:
    content.flag("template-suspicious", "template", f"{where} {what}")


def _read(text: str) -> _Code:
    code = _Code()
    at = 0
    while opening := _OPENING.search(text, at):
        if opening[1] == "#":
            end = text.find("#}", opening.end())
            at = len(text) if end < 0 else end + 2
            continue
        at = _read_code(text, opening.end(), code, is_statement=opening[1] == "%")
    return code


def _read_code(text: str, begin: int, code: _Code, *, is_statement: bool) -> int:
    """Read the code up to its closing mark; return where it ends."""
    before = ""
    first = True
    recent: list[str] = []
    for token in _tokens(text, begin):
        kind, value = token.lastgroup, token[0]
        if kind == "close":
            return token.end()
        if kind == "other" and value.isspace():
            continue
        if kind == "name":
            if first and is_statement:
                code.statements.append(value)
            code.names.append((value, before))
            first = False
        elif kind == "string":
            plain = _resolved(value[1:-1])
            code.strings.append(plain)
            value = f"'{plain}"
        elif value not in "-+":
            first = False
        recent = [*recent[-2:], value]
        code.rewritten |= _rewrites(recent)
        code.joined_underscores |= _joins_underscores(recent)
        before = value[-1:]
    return len(text)


def _tokens(text: str, begin: int) -> Iterator[re.Match[str]]:
    return _TOKEN.finditer(text, begin)


def _joins_underscores(recent: list[str]) -> bool:
    """Whether the last three tokens make two underscores of single ones: `'_' * 2`, `'_' ~ '_class'`."""
    left, operator, right = ("", "", "", *recent)[-3:]
    if operator == "*":
        return "'_" in {left, right}
    return operator in {"~", "+"} and left.startswith("'") and left.endswith("_") and right.startswith("'_")


def _rewrites(recent: list[str]) -> bool:
    """Whether the last three tokens change a string, `'…'|lower`, or give a name to underscores, `x = '_'`."""
    left, operator, right = ("", "", "", *recent)[-3:]
    if operator == "=":
        return right.startswith("'_") and not right[1:].strip("_")
    return left.startswith("'") and operator in {"|", "."} and right in _REWRITING


def _resolved(string: str) -> str:
    """Resolve escapes as Python does: names hide behind them."""
    return _ESCAPE.sub(_resolve, string)


def _resolve(match: re.Match[str]) -> str:
    for digits, base in ((match[1], 16), (match[2], 16), (match[3], 16), (match[4], 8)):
        if digits is not None:
            value = int(digits, base)
            return chr(value) if value <= _LARGEST_CHARACTER else "?"
    if match[5] is not None:
        return "_" if match[5].upper() in {"LOW LINE", "UNDERSCORE"} else "?"
    return match[6]
