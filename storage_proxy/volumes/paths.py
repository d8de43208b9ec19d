"""Paths and names below a storage, held to the path policy (`proxy_client.paths`)."""

import hashlib
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import quote

from proxy_client.errors import PathRefused
from proxy_client.paths import (
    LONGEST_COMPONENT,
    MANIFEST_FOLDER,
    REFUSED_CATEGORIES,
    RESERVED,
    STAGING_FOLDER,
    folded,
    objection,
)

ROOT = "/"

_LONGEST_SHOWN = 120
_REMEMBERED = 8192  # names; every step of an import asks about the same ones


@lru_cache(_REMEMBERED)
def shown(path: str) -> str:
    """Quote a hostile name for a message: control characters escaped, at most 120 characters."""
    cut = path if len(path) <= _LONGEST_SHOWN else path[:_LONGEST_SHOWN] + "…"
    return "'" + "".join(_escaped(character) for character in cut) + "'"


def _escaped(character: str) -> str:
    if unicodedata.category(character) in REFUSED_CATEGORIES:
        return character.encode("unicode_escape").decode("ascii")
    return character


def check_path(path: str, *, reserved: frozenset[str] = RESERVED) -> str:
    """Return `path` if it may be written. Raises `PathRefused` with the reason.

    `reserved` are the component names that are Stowage's own, refused in any case or composition.
    """
    if reason := objection(path, reserved):
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
