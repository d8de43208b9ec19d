"""Opening a path beneath a directory descriptor: nothing leaves it, no symbolic link is followed.

By `openat2` (Linux 5.6), else component by component with O_NOFOLLOW. `resolve()` and then `open()` would lose the
race against somebody who swaps a folder for a link.
"""

import ctypes
import errno
import os

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_ATTEMPTS = 16  # openat2 says EAGAIN while somebody renames what it walks through


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


_OPENAT2 = 437  # the same number on every architecture
_RESOLVE = 0x08 | 0x04 | 0x02  # BENEATH, NO_SYMLINKS, NO_MAGICLINKS
_NO_XDEV = 0x01
_libc = ctypes.CDLL(None, use_errno=True)


def _openat2(root: int, path: str, flags: int, mode: int, *, inside: bool = False) -> int:
    how = _OpenHow(flags | os.O_CLOEXEC, mode, _RESOLVE | (_NO_XDEV if inside else 0))
    for _ in range(_ATTEMPTS):
        fd: int = _libc.syscall(
            ctypes.c_long(_OPENAT2),
            ctypes.c_int(root),
            ctypes.c_char_p(os.fsencode(path)),
            ctypes.byref(how),
            ctypes.c_size_t(ctypes.sizeof(how)),
        )
        if fd >= 0:
            return fd
        if ctypes.get_errno() not in {errno.EAGAIN, errno.EINTR}:
            break
    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), path)


def _walk(root: int, path: str, flags: int, mode: int, *, inside: bool = False) -> int:
    *folders, name = path.split("/")
    if path.startswith("/") or ".." in folders or name == "..":
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), path)
    at = root
    try:
        for folder in folders:
            inner = os.open(folder, FOLDER, dir_fd=at)
            if at != root:
                os.close(at)
            at = inner
        found = os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=at)
    finally:
        if at != root:
            os.close(at)
    # A folder of the same file system that is mounted here (a bind mount) goes unnoticed this way.
    if inside and os.fstat(found).st_dev != os.fstat(root).st_dev:
        os.close(found)
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), path)
    return found


def _kernel_has_openat2() -> bool:
    root = os.open("/", FOLDER)
    try:
        os.close(_openat2(root, ".", FOLDER, 0))
    except OSError:  # ENOSYS of an old kernel, EPERM of an old container runtime
        return False
    finally:
        os.close(root)
    return True


_open_beneath = _openat2 if _kernel_has_openat2() else _walk


def open_beneath(root: int, path: str, flags: int, mode: int = 0, *, inside: bool = False) -> int:
    """Open `path` ("" is the root itself). A link, at its end or on the way, is an error: ELOOP or ENOTDIR.

    For a folder it is always NotADirectoryError, as for any other thing that is no folder. `inside`: what is mounted on
    the way or at the end is an error too, EXDEV.
    """
    try:
        if path and "/" not in path and path not in {".", ".."} and not inside:
            # One component leads nowhere else, and this costs half.
            return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=root)
        return _open_beneath(root, path or ".", flags, mode, inside=inside)
    except OSError as exc:
        if exc.errno == errno.ELOOP and flags & os.O_DIRECTORY:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path) from exc
        raise
