"""File system access beneath an open directory (`root`), to which every path is relative.

Functions raise OSError; `translated` turns that into an error of `proxy_client.errors` at the border.
"""

import ctypes
import errno
import hashlib
import os
import stat
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from proxy_client.errors import (
    DiskFull,
    QuotaExceeded,
    ReadOnlyStorage,
    StorageError,
    StorageFailure,
)
from storage_proxy.storages.base import STAGING_FOLDER, Digests
from storage_proxy.volumes.beneath import FOLDER, open_beneath
from storage_proxy.volumes.threads import stop_point

CHUNK = 1 << 20  # bytes read or hashed at a time

_libc = ctypes.CDLL(None, use_errno=True)
_UNSUPPORTED = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}
_KEEP_SIZE = 1  # FALLOC_FL_KEEP_SIZE
_WRITE_BACK = 2  # SYNC_FILE_RANGE_WRITE

# A clock tick of any kernel: a file changed twice within one keeps its modification time.
_TICK = 0.02


class Identity(NamedTuple):
    """What tells a file from another one, or from itself after a change. Without st_dev: a reboot changes that."""

    ino: int
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> "Identity":
        """Take it from `stat`."""
        return cls(status.st_ino, status.st_size, status.st_mtime_ns)


@dataclass(frozen=True, slots=True)
class Modes:
    """How new files and folders look, whatever the umask; `owner` (uid, gid) is set where the process is root."""

    file: int = 0o644
    folder: int = 0o755
    owner: tuple[int, int] | None = None

    def apply(self, fd: int) -> None:
        """Set mode and owner of an open file or folder of ours."""
        status = os.fstat(fd)
        if self.owner is not None and (status.st_uid, status.st_gid) != self.owner:
            os.fchown(fd, *self.owner)
        os.fchmod(fd, self.folder if stat.S_ISDIR(status.st_mode) else self.file)


PUBLIC = Modes()
PRIVATE = Modes(0o600, 0o700)


# Errors.


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Turn an OSError into the `StorageError` that says what was being done; its message holds no absolute path."""
    try:
        yield
    except OSError as exc:
        raise storage_error(exc, doing) from exc


def storage_error(exc: OSError, doing: str) -> StorageError:
    """Choose the class by errno."""
    name = errno.errorcode.get(exc.errno or 0, "unknown error")
    if exc.errno == errno.ENOSPC:
        return DiskFull(f"the file system is full ({name}) while {doing}; make room and try again")
    if exc.errno == errno.EDQUOT:
        return QuotaExceeded(f"the quota is used up ({name}) while {doing}; make room and try again")
    if exc.errno in {errno.EROFS, errno.EACCES, errno.EPERM}:
        return ReadOnlyStorage(
            f"the file system refuses ({name}) while {doing}; check its mount and permissions"
        )
    return StorageFailure(f"the file system failed ({name}) while {doing}")


# Opening.


@contextmanager
def opened(
    root: int, path: str, flags: int = FOLDER, mode: int = 0, *, inside: bool = False
) -> Iterator[int]:
    """Open a folder, or with other `flags` a file, for the length of a block; `inside` as `open_beneath` has it."""
    fd = open_beneath(root, path, flags, mode, inside=inside)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def trusted(path: Path) -> Iterator[int]:
    """Open a folder that the configuration names; links in that path are the operator's own."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def parent_of(root: int, path: str) -> Iterator[tuple[int, str]]:
    """Open the folder that holds `path`, if that is another one than `root`; yields it with the last component."""
    folder, _, name = path.rpartition("/")
    if not folder:
        yield root, name
        return
    with opened(root, folder) as fd:
        yield fd, name


# Looking.


def status(root: int, path: str) -> os.stat_result | None:
    """Look at `path` itself, not through it; None where there is nothing. A file on the way: NotADirectoryError."""
    if not path:
        return os.fstat(root)
    try:
        with parent_of(root, path) as (folder, name):
            return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def identity(root: int, path: str) -> Identity | None:
    """Return the identity of what lies at `path`; None where there is nothing, or no folder to hold it."""
    try:
        found = status(root, path)
    except NotADirectoryError:
        return None
    return None if found is None else Identity.of(found)


def is_folder(root: int, path: str) -> bool:
    """Whether a folder (and no link to one) lies at `path`."""
    try:
        found = status(root, path)
    except NotADirectoryError:
        return False
    return found is not None and stat.S_ISDIR(found.st_mode)


def modified_at(found: os.stat_result) -> datetime:
    """Return the modification time."""
    return datetime.fromtimestamp(found.st_mtime, UTC)


def open_folder(root: int, path: str) -> int:
    """Open a folder; the caller closes it."""
    return open_beneath(root, path, FOLDER)


def open_regular(root: int, path: str) -> int:
    """Open a regular file for reading; FileNotFoundError for anything else.

    Looks before it opens: opening a FIFO or a device can block or have effects.
    """
    try:
        found = status(root, path)
    except NotADirectoryError:
        found = None
    if found is None or not stat.S_ISREG(found.st_mode):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    fd = open_beneath(root, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    return fd


def read_small(root: int, path: str, limit: int) -> bytes | None:
    """Read a regular file of at most `limit` bytes; None where there is none or it is larger."""
    try:
        fd = open_regular(root, path)
    except OSError as exc:
        if exc.errno in {errno.ENOENT, errno.ELOOP, errno.ENOTDIR}:
            return None
        raise
    try:
        if os.fstat(fd).st_size > limit:
            return None
        data = bytearray()
        while chunk := os.read(fd, CHUNK):
            data += chunk
            if len(data) > limit:
                return None
        return bytes(data)
    finally:
        os.close(fd)


def settle(fd: int) -> None:
    """Wait, for milliseconds, until a change to an open file that was just changed shows in its modification time."""
    if 0 <= time.time() - os.fstat(fd).st_mtime < _TICK:
        time.sleep(_TICK)


def digest(fd: int, *, blob_id: bool = True) -> Digests | None:
    """Hash a whole file; None if it changed meanwhile. Ends early with `Stopped` (see `threads`)."""
    before = os.fstat(fd)
    sha256, sha1 = hashlib.sha256(), blob_hash(before.st_size) if blob_id else None
    buffer = memoryview(bytearray(CHUNK))
    offset = 0
    while count := os.preadv(fd, [buffer], offset):
        stop_point()
        sha256.update(buffer[:count])
        if sha1 is not None:
            sha1.update(buffer[:count])
        offset += count
    if offset != before.st_size or Identity.of(os.fstat(fd)) != Identity.of(before):
        return None
    return Digests(offset, sha256.hexdigest(), None if sha1 is None else sha1.hexdigest())


def blob_hash(size: int) -> "hashlib._Hash":
    """Begin the hash that Git gives a blob of `size` bytes."""
    return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)


def names(fd: int) -> list[tuple[str, os.stat_result]]:
    """Return the entries of an open folder with their status, without those that vanish meanwhile."""
    found = []
    with os.scandir(fd) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):
                found.append((entry.name, entry.stat(follow_symlinks=False)))
    return found


def count(fd: int) -> int:
    """Return how many entries an open folder has."""
    with os.scandir(fd) as entries:
        return sum(1 for _ in entries)


def walk(root: int, top: str = "") -> Iterator[tuple[str, os.stat_result]]:
    """Yield everything below `top` with its path, a folder before what it holds.

    What vanishes is passed over, and so is what is mounted somewhere in between: it is no part of the folder.
    """
    folders = [top]
    while folders:
        stop_point()
        folder = folders.pop()
        try:
            with opened(root, folder, inside=folder != top) as fd:
                entries = names(fd)
        except OSError as exc:
            passed = {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EXDEV}
            if folder != top and exc.errno in passed:
                continue
            raise
        for name, found in entries:
            path = f"{folder}/{name}" if folder else name
            yield path, found
            if stat.S_ISDIR(found.st_mode):
                folders.append(path)


# Writing.


def create(root: int, path: str, modes: Modes) -> int:
    """Make a new file, open for reading and writing; FileExistsError where anything lies there, a link too."""
    fd = open_beneath(root, path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    modes.apply(fd)
    return fd


def write_all(fd: int, data: bytes | bytearray | memoryview) -> None:
    """Write until everything is written."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


def write_at(fd: int, data: memoryview, offset: int) -> None:
    """Write everything at `offset`."""
    while data:
        count = os.pwrite(fd, data, offset)
        data, offset = data[count:], offset + count


def write_vector(fd: int, views: Sequence[memoryview], offset: int) -> int:
    """Write buffers one after the other from `offset` on, as far as one call gets; return how far."""
    return os.pwritev(fd, views, offset)


def allocate(fd: int, size: int) -> None:
    """Take the room for `size` bytes now, where the file system can; the file does not grow by it."""
    if size and _libc.fallocate(fd, _KEEP_SIZE, ctypes.c_long(0), ctypes.c_long(size)):
        number = ctypes.get_errno()
        if number not in _UNSUPPORTED:
            raise OSError(number, os.strerror(number))


def start_writing_back(fd: int, offset: int, size: int) -> None:
    """Have the kernel begin to write a range to the disk, so that a later sync has less to wait for."""
    if hasattr(_libc, "sync_file_range"):
        _libc.sync_file_range(fd, ctypes.c_long(offset), ctypes.c_long(size), _WRITE_BACK)


def copy_range(source: int, target: int, offset: int, size: int) -> None:
    """Copy a range between open files, in the kernel where it can do that."""
    end = offset + size
    while offset < end:
        try:
            count = os.copy_file_range(source, target, end - offset, offset, offset)
        except OSError as exc:
            if exc.errno not in {*_UNSUPPORTED, errno.EXDEV, errno.EBADF, errno.EPERM}:
                raise
            data = os.pread(source, min(CHUNK, end - offset), offset)
            write_at(target, memoryview(data), offset)
            count = len(data)
        if not count:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        offset += count


def append(root: int, path: str, line: bytes, *, durable: bool) -> int:
    """Append in one piece to a file that is made when it is not there; return how long it is then."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
    with opened(root, path, flags, PRIVATE.file) as fd:
        write_all(fd, line)
        if durable:
            os.fdatasync(fd)
        return os.fstat(fd).st_size


def fdatasync(fd: int) -> None:
    """Make the bytes of an open file durable."""
    os.fdatasync(fd)


def truncate(fd: int, size: int) -> None:
    """Cut an open file."""
    os.ftruncate(fd, size)


def sync_folder(root: int, path: str) -> None:
    """Make the names in a folder durable."""
    with opened(root, path) as fd:
        os.fsync(fd)


def write_file(root: int, path: str, data: bytes, modes: Modes) -> None:
    """Write a small file durably and atomically, in place of one that lies there."""
    folder, slash, _ = path.rpartition("/")
    new = f"{folder}{slash}{uuid.uuid4().hex}"
    fd = create(root, new, modes)
    try:
        try:
            write_all(fd, data)
            os.fsync(fd)
        finally:
            os.close(fd)
        rename(root, new, root, path)
    except OSError:
        with suppress(OSError):
            unlink(root, new)
        raise
    sync_folder(root, folder)


def make_folder(root: int, path: str, modes: Modes) -> None:
    """Make one folder; FileExistsError where anything lies there."""
    with parent_of(root, path) as (parent, name):
        os.mkdir(name, 0o700, dir_fd=parent)
        with opened(parent, name) as fd:
            modes.apply(fd)


def make_folders(root: int, path: str, modes: Modes, *, durable: bool = True) -> None:
    """Make a folder and those above it; those that are there are left as they are."""
    if not path or is_folder(root, path):
        return
    above = path.rpartition("/")[0]
    make_folders(root, above, modes, durable=durable)
    with suppress(FileExistsError):
        make_folder(root, path, modes)
    if not is_folder(root, path):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
    if durable:
        sync_folder(root, above)


def unlink(root: int, path: str) -> None:
    """Remove a file or a link."""
    with parent_of(root, path) as (folder, name):
        os.unlink(name, dir_fd=folder)


def remove_folder(root: int, path: str) -> bool:
    """Remove a folder if it is empty; whether it was."""
    try:
        with parent_of(root, path) as (folder, name):
            os.rmdir(name, dir_fd=folder)
    except OSError as exc:
        if exc.errno in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT, errno.ENOTDIR, errno.EBUSY}:
            return False
        raise
    return True


def remove_tree(root: int, path: str) -> None:
    """Remove whatever lies at `path`; no error if there is nothing.

    Works at any depth with a constant number of descriptors: what lies deeper is first moved up into `path`. Ends with an
    error at what is mounted somewhere below, which stays as it is.
    """
    found = status(root, path)
    if found is None:
        return
    if not stat.S_ISDIR(found.st_mode):
        unlink(root, path)
        return
    with opened(root, path) as top:
        while entries := names(top):
            for name, entry in entries:
                if stat.S_ISDIR(entry.st_mode):
                    _flatten(top, name)
                else:
                    with suppress(FileNotFoundError):
                        os.unlink(name, dir_fd=top)
    remove_folder(root, path)


def _flatten(top: int, name: str) -> None:
    with suppress(FileNotFoundError), opened(top, name, inside=True) as folder:
        for inner, found in names(folder):
            if not stat.S_ISDIR(found.st_mode):
                with suppress(FileNotFoundError):
                    os.unlink(inner, dir_fd=folder)
            elif not remove_folder(folder, inner):
                with suppress(FileNotFoundError):
                    os.rename(inner, uuid.uuid4().hex, src_dir_fd=folder, dst_dir_fd=top)
    remove_folder(top, name)


# Renaming. `source` and `target` lie below folders of the same file system.


def rename(source_root: int, source: str, target_root: int, target: str) -> None:
    """Rename, in place of what lies at the target."""
    with parent_of(source_root, source) as (folder, name), parent_of(target_root, target) as (to, new):
        os.rename(name, new, src_dir_fd=folder, dst_dir_fd=to)


_NOREPLACE = 1
_EXCHANGE = 2


def _renameat2(folder: int, name: str, to: int, new: str, flags: int) -> None:
    if not hasattr(_libc, "renameat2"):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if _libc.renameat2(folder, os.fsencode(name), to, os.fsencode(new), ctypes.c_uint(flags)):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), name, None, new)


def rename_new(source_root: int, source: str, target_root: int, target: str) -> None:
    """Rename to a name that is free; FileExistsError where anything lies there.

    Where the file system has no RENAME_NOREPLACE (NFS, some FUSE), a file is linked and unlinked, and a folder
    renamed over an empty one made for it.
    """
    with parent_of(source_root, source) as (folder, name), parent_of(target_root, target) as (to, new):
        try:
            _renameat2(folder, name, to, new, _NOREPLACE)
        except OSError as exc:
            if exc.errno not in _UNSUPPORTED:
                raise
        else:
            return
        if is_folder(folder, name):
            os.mkdir(new, 0o700, dir_fd=to)
            try:
                os.rename(name, new, src_dir_fd=folder, dst_dir_fd=to)
            except OSError:
                remove_folder(to, new)
                raise
        else:
            os.link(name, new, src_dir_fd=folder, dst_dir_fd=to, follow_symlinks=False)
            os.unlink(name, dir_fd=folder)


def exchange(source_root: int, source: str, target_root: int, target: str) -> None:
    """Swap two files. Afterwards `source` names what lay at `target`.

    Where the file system has no RENAME_EXCHANGE, the file at the target is first linked beside the source, under a
    name that no file of an import has. After a crash in between `settle_exchange` tidies up.
    """
    with parent_of(source_root, source) as (folder, name), parent_of(target_root, target) as (to, new):
        try:
            _renameat2(folder, name, to, new, _EXCHANGE)
        except OSError as exc:
            if exc.errno not in _UNSUPPORTED:
                raise
        else:
            return
        os.link(new, STAGING_FOLDER, src_dir_fd=to, dst_dir_fd=folder, follow_symlinks=False)
        os.rename(name, new, src_dir_fd=folder, dst_dir_fd=to)
        os.rename(STAGING_FOLDER, name, src_dir_fd=folder, dst_dir_fd=folder)


def settle_exchange(source_root: int, source: str) -> None:
    """Bring an `exchange` that a crash interrupted to its end, or undo its beginning."""
    with parent_of(source_root, source) as (folder, name):
        if status(folder, STAGING_FOLDER) is None:
            return
        if status(folder, name) is None:
            os.rename(STAGING_FOLDER, name, src_dir_fd=folder, dst_dir_fd=folder)
        else:
            os.unlink(STAGING_FOLDER, dir_fd=folder)
