"""The one path policy: which names Stowage writes. Pure functions, for folders and object keys alike.

Names come from registries and are hostile. They are refused or taken as they are, byte for byte, never
repaired: a repaired name is another name, which somebody else may own.
"""

import hashlib
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import quote

from proxy_client.errors import PathRefused
from storage_proxy.storages.base import MANIFEST_FOLDER, STAGING_FOLDER

ROOT = "/"
LONGEST_COMPONENT = 255  # bytes, NAME_MAX of every file system that we know
LONGEST_PATH = 4000  # bytes, below PATH_MAX (4096)
DEEPEST_PATH = 64  # components
RESERVED = frozenset({MANIFEST_FOLDER, STAGING_FOLDER})

_REFUSED_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})
_LONGEST_SHOWN = 120
_REMEMBERED = 8192  # names; every step of an import asks about the same ones


@lru_cache(_REMEMBERED)
def shown(path: str) -> str:
    """Quote a hostile name for a message: control characters escaped, at most 120 characters."""
    cut = path if len(path) <= _LONGEST_SHOWN else path[:_LONGEST_SHOWN] + "…"
    return "'" + "".join(_escaped(character) for character in cut) + "'"


def _escaped(character: str) -> str:
    if unicodedata.category(character) in _REFUSED_CATEGORIES:
        return character.encode("unicode_escape").decode("ascii")
    return character


def folded(path: str) -> str:
    """Return what two names have in common when a file system that ignores case or composition mixes them up."""
    composed = unicodedata.normalize("NFC", path).casefold()
    return unicodedata.normalize("NFC", composed)


def check_path(path: str, *, reserved: frozenset[str] = RESERVED) -> str:
    """Return `path` if it may be written. Raises `PathRefused` with the reason.

    `reserved` are the component names that are Stowage's own, refused in any case or composition.
    """
    if reason := _objection(path, reserved):
        raise PathRefused(f"the path {shown(path)} is refused: {reason}")
    return path


def check_readable(path: str) -> str:
    """Return `path` if it may be read or removed: as `check_path`, but manifests are no secret."""
    return check_path(path, reserved=frozenset({STAGING_FOLDER}))


def check_destination(path: str) -> str:
    """Return `path` if files may be put below it: "/" alone is the root, else as `check_path`."""
    return path if path == ROOT else check_path(path)


def check_tree(paths: Iterable[str]) -> None:
    """Check every path and that all of them can lie in one folder.

    Raises `PathRefused` where a name comes twice, two names differ only by case or composition, or one path is
    a folder of another.
    """
    spelled: dict[str, str] = {}
    files: set[str] = set()
    for path in paths:
        check_path(path)
        if path in files:
            raise PathRefused(f"the path {shown(path)} comes twice")
        if spelled.setdefault(folded(path), path) != path:
            raise _collision(path, spelled[folded(path)])
        files.add(path)
    folders: set[str] = set()
    for path in files:
        cut = path.rfind("/")
        while cut > 0 and path[:cut] not in folders:
            folder = path[:cut]
            if folder in files:
                raise PathRefused(f"the path {shown(folder)} is both a file and a folder")
            if spelled.setdefault(folded(folder), folder) != folder:
                raise _collision(folder, spelled[folded(folder)])
            folders.add(folder)
            cut = path.rfind("/", 0, cut)


def _collision(path: str, other: str) -> PathRefused:
    return PathRefused(
        f"the paths {shown(path)} and {shown(other)} differ only by case or composition of characters",
    )


@lru_cache(_REMEMBERED)
def _objection(path: str, reserved: frozenset[str]) -> str | None:
    if not path:
        return "it is empty"
    if path.startswith("/"):
        return "it is absolute"
    if path.endswith("/"):
        return "it ends with a slash"
    if reason := _character_objection(path):
        return reason
    if len(path.encode()) > LONGEST_PATH:
        return f"it is longer than {LONGEST_PATH} bytes"
    components = path.split("/")
    if len(components) > DEEPEST_PATH:
        return f"it is deeper than {DEEPEST_PATH} folders"
    return next(filter(None, (_component_objection(component, reserved) for component in components)), None)


def _character_objection(path: str) -> str | None:
    if "\\" in path:
        return "it holds a backslash"
    if path.isascii() and path.isprintable():
        return None
    classes = _REFUSED_CATEGORIES.intersection(map(unicodedata.category, path))
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


def join(folder: str, path: str) -> str:
    """Return `path` below `folder`, where "/" and "" are the root."""
    return path if folder in {ROOT, ""} else f"{folder}/{path}"


def parents(path: str) -> list[str]:
    """Return the folders above `path`, the outermost first, without the root."""
    components = path.split("/")
    return ["/".join(components[:count]) for count in range(1, len(components))]


def encode_name(name: str) -> str:
    """Return the name as one component: every character that is special to paths or URLs percent-encoded."""
    return quote(name, safe="")


def default_path(artifact: str, version: str) -> str:
    """Return where a version of an artifact lands unless told otherwise: `org/name/version`, `/` there as `%2F`."""
    return check_path(f"{artifact}/{version.replace('/', '%2F')}")


def manifest_name(artifact: str, version: str) -> str:
    """Return the name of the manifest file in `.stowage`; one that is too long ends with its hash instead."""
    name = f"{encode_name(artifact)}@{encode_name(version)}"
    if len(name) > LONGEST_COMPONENT - len(".json"):
        name = f"{name[:180]}~{hashlib.sha256(name.encode()).hexdigest()}"
    return f"{name}.json"


def manifest_path(artifact: str, version: str) -> str:
    """Return where the manifest lies below the folder that it describes."""
    return f"{MANIFEST_FOLDER}/{manifest_name(artifact, version)}"
