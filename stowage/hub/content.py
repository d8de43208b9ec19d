"""What a folder holds at this moment: files with their digests, Git's ids, and a commit id made of them. Blocking."""

import hashlib
import os
import stat
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from stowage.hub.errors import InvalidLayout

CHUNK = 1 << 20  # bytes
LFS_ABOVE = 1 << 20  # bytes
PLAIN_UP_TO = 10 << 20  # bytes, for names that are text by convention
SNIFFED = 8000  # bytes

# Two writes within one tick of the kernel's clock leave the same time stamp (4 ms on most systems): what was
# written less than this ago is waited for, so that a digest is never that of half of the two.
CLOCK_TICK = 20_000_000  # nanoseconds

_SHOWN_DOT_NAMES = frozenset({".gitattributes", ".gitignore"})


class ContentChanged(Exception):
    """A file is no longer the one that was listed."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What tells a file's present content from any other, without reading it."""

    device: int
    inode: int
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, details: os.stat_result) -> "Identity":
        """Take it from a stat."""
        return cls(details.st_dev, details.st_ino, details.st_size, details.st_mtime_ns)


@dataclass(frozen=True, slots=True)
class Digest:
    """A file's Git blob id; for an LFS file that is its pointer's, and `sha256` is the content's."""

    blob_id: str
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class ServedFile:
    """A file of a revision; `path` is relative to the revision's root, `location` is where to open it."""

    path: str
    location: Path
    identity: Identity
    digest: Digest

    @property
    def size(self) -> int:
        """Bytes of the content."""
        return self.identity.size

    @property
    def etag(self) -> str:
        """The entity tag without its quotes: the content's sha256 (LFS), else the blob id."""
        return self.digest.sha256 or self.digest.blob_id

    @property
    def pointer(self) -> bytes | None:
        """The text that Git holds in the place of an LFS file; None for any other."""
        return None if self.digest.sha256 is None else lfs_pointer(self.digest.sha256, self.size)


@dataclass(frozen=True, slots=True)
class Listing:
    """A folder's files by path, without digests."""

    files: dict[str, Identity]
    modified_ns: int
    created_ns: int


@dataclass(frozen=True, slots=True)
class Content:
    """A folder as one commit: files and folders by path, in the order of their paths; `folders` are Git tree ids."""

    commit: str
    files: Mapping[str, ServedFile]
    folders: Mapping[str, str]
    listing: Listing

    def is_of(self, listing: Listing) -> bool:
        """Whether a later look at the folder shows the same files, unchanged."""
        return self.listing == listing


def list_folder(root: Path, *, without: Iterable[str] = ()) -> Listing:
    """List what is served of `root`: regular files, no symlink followed on the way, and nothing hidden.

    `without` names folders (relative) that are left out; at the top, folders that begin with `@` always are.
    Raises `ContentChanged` where a folder disappears meanwhile.
    """
    files: dict[str, Identity] = {}
    times: list[int] = []
    left_out = frozenset(without)

    def walk(descriptor: int, prefix: str) -> None:
        times.append(os.fstat(descriptor).st_mtime_ns)
        with os.scandir(descriptor) as entries:
            for entry in entries:
                path = prefix + entry.name
                if not _is_shown(entry.name):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    if path not in left_out and (prefix or not entry.name.startswith("@")):
                        inner = _open_folder(entry.name, descriptor)
                        try:
                            walk(inner, path + "/")
                        finally:
                            os.close(inner)
                elif entry.is_file(follow_symlinks=False):
                    files[path] = Identity.of(entry.stat(follow_symlinks=False))

    try:
        top = _open_folder(root, None)
        try:
            walk(top, "")
        finally:
            os.close(top)
    except PermissionError as exc:
        raise InvalidLayout(f"{root.name}: a folder cannot be read; check the permissions") from exc
    except (FileNotFoundError, NotADirectoryError) as exc:
        raise ContentChanged from exc
    times.extend(identity.mtime_ns for identity in files.values())
    return Listing({path: files[path] for path in sorted(files)}, max(times), min(times))


def read_digest(location: Path, identity: Identity) -> Digest:
    """Read a file's digest, in one pass. Raises `ContentChanged` where it is not the file that was listed."""
    too_young = identity.mtime_ns + CLOCK_TICK - time.time_ns()
    if 0 < too_young <= CLOCK_TICK:
        time.sleep(too_young / 1e9)
    descriptor = open_served(location, identity)
    try:
        digest = _digest(descriptor, location.name, identity.size)
        if Identity.of(os.fstat(descriptor)) != identity:
            raise ContentChanged
    finally:
        os.close(descriptor)
    return digest


def open_served(location: Path, identity: Identity) -> int:
    """Open a listed file for reading. Raises `ContentChanged` where another file, or none, lies there now.

    The identity was taken beneath the served directory without following links: what equals it lies there too,
    whatever its parents have become since.
    """
    try:
        descriptor = os.open(location, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except PermissionError as exc:
        raise InvalidLayout(f"{location.name}: cannot be read; check its permissions") from exc
    except OSError as exc:
        raise ContentChanged from exc
    if Identity.of(os.fstat(descriptor)) != identity:
        os.close(descriptor)
        raise ContentChanged
    return descriptor


def make_content(root: Path, listing: Listing, digests: Mapping[str, Digest]) -> Content:
    """Put a listing and its digests together; every file of the listing has one."""
    files = {
        path: ServedFile(path, root / path, identity, digests[path])
        for path, identity in listing.files.items()
    }
    trees = _git_trees({path: file.digest.blob_id for path, file in files.items()})
    signature = "Stowage hub <hub@localhost> 0 +0000"
    commit = f"tree {trees.pop('')}\nauthor {signature}\ncommitter {signature}\n\nPresent content\n"
    return Content(
        git_id("commit", commit.encode()),
        files,
        {path: trees[path] for path in sorted(trees)},
        listing,
    )


def lfs_pointer(sha256: str, size: int) -> bytes:
    """Return the pointer file of https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


def git_id(kind: str, content: bytes) -> str:
    """Return the id that Git gives an object: SHA-1 of its kind, size and content."""
    return hashlib.sha1(
        b"%s %d\0%s" % (kind.encode(), len(content), content), usedforsecurity=False
    ).hexdigest()


def _is_shown(name: str) -> bool:
    if name.startswith("."):
        return name in _SHOWN_DOT_NAMES
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _open_folder(name: str | Path, beneath: int | None) -> int:
    return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=beneath)


def _digest(descriptor: int, name: str, size: int) -> Digest:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise ContentChanged
    buffer = bytearray(min(max(size, SNIFFED), CHUNK))
    view = memoryview(buffer)
    got = os.preadv(descriptor, [buffer], 0)
    text_by_name = name in {"README.md", ".gitattributes"} or name.endswith((".json", ".txt", ".md"))
    plain = text_by_name and size <= PLAIN_UP_TO
    lfs = not plain and (size > LFS_ABOVE or 0 in view[: min(got, SNIFFED)])
    # One digest is enough: the blob id of an LFS file is its pointer's.
    running = hashlib.sha256() if lfs else hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    offset = 0
    while got and offset <= size:
        running.update(view[:got])
        offset += got
        got = os.preadv(descriptor, [buffer], offset)
    if offset != size:
        raise ContentChanged
    if not lfs:
        return Digest(running.hexdigest())
    sha256 = running.hexdigest()
    return Digest(git_id("blob", lfs_pointer(sha256, size)), sha256)


def _git_trees(blobs: Mapping[str, str]) -> dict[str, str]:
    """Return the id of Git's tree object of every folder, "" for the root."""
    entries: dict[str, list[tuple[bytes, bytes]]] = {"": []}
    for path, blob_id in blobs.items():
        folder, _, name = path.rpartition("/")
        for end in [at for at, char in enumerate(path) if char == "/"]:
            entries.setdefault(path[:end], [])
        entries[folder].append((name.encode(), b"100644 %s\0%s" % (name.encode(), bytes.fromhex(blob_id))))
    trees: dict[str, str] = {}
    for folder in sorted(filter(None, entries), key=lambda path: path.count("/"), reverse=True):
        trees[folder] = _tree_id(entries[folder])
        parent, _, name = folder.rpartition("/")
        # Git sorts a folder as if its name ended with a slash.
        entries[parent].append(
            (name.encode() + b"/", b"40000 %s\0%s" % (name.encode(), bytes.fromhex(trees[folder])))
        )
    trees[""] = _tree_id(entries[""])
    return trees


def _tree_id(entries: list[tuple[bytes, bytes]]) -> str:
    return git_id("tree", b"".join(entry for _, entry in sorted(entries)))
