"""The one path policy: which names Stowage writes. Pure functions, for folders, object keys and what clients ask for alike.

Names come from registries and are hostile. They are refused or taken as they are, byte for byte, never
repaired: a repaired name is another name, which somebody else may own.
"""

import unicodedata
from functools import lru_cache

MODEL_ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}$"
MANIFEST_FOLDER = ".stowage"
STAGING_FOLDER = ".staging"
RESERVED = frozenset({MANIFEST_FOLDER, STAGING_FOLDER})
LONGEST_COMPONENT = 255  # bytes, NAME_MAX of every file system that we know
LONGEST_PATH = 4000  # bytes, below PATH_MAX (4096)
DEEPEST_PATH = 64  # components
REFUSED_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})

_REMEMBERED = 8192  # names; every step of an import asks about the same ones


def folded(path: str) -> str:
    """Return what two names have in common when a file system that ignores case or composition mixes them up."""
    composed = unicodedata.normalize("NFC", path).casefold()
    return unicodedata.normalize("NFC", composed)


@lru_cache(_REMEMBERED)
def objection(path: str, reserved: frozenset[str] = RESERVED, longest: int = LONGEST_PATH) -> str | None:
    """Say why a relative path may not be written ("it is empty"); None for one that may.

    `reserved` are component names that are Stowage's own, refused in any case or composition; `longest` is in bytes.
    """
    if not path:
        return "it is empty"
    if path.startswith("/"):
        return "it is absolute"
    if path.endswith("/"):
        return "it ends with a slash"
    if reason := _character_objection(path):
        return reason
    if len(path.encode()) > longest:
        return f"it is longer than {longest} bytes"
    components = path.split("/")
    if len(components) > DEEPEST_PATH:
        return f"it is deeper than {DEEPEST_PATH} folders"
    return next(filter(None, (_component_objection(component, reserved) for component in components)), None)


def _character_objection(path: str) -> str | None:
    if "\\" in path:
        return "it holds a backslash"
    if path.isascii() and path.isprintable():
        return None
    classes = REFUSED_CATEGORIES.intersection(map(unicodedata.category, path))
    return f"it holds a character of class {min(classes)}" if classes else None


def _component_objection(component: str, reserved: frozenset[str]) -> str | None:
    if not component:
        return "a component is empty"
    if component in {".", ".."}:
        return "a component is '.' or '..'"
    if component != component.strip():
        return "a component begins or ends with a space"
    if len(component.encode()) > LONGEST_COMPONENT:
        return f"a component is longer than {LONGEST_COMPONENT} bytes"
    if folded(component) in reserved:
        return f"{folded(component)} is Stowage's own name"
    return None
