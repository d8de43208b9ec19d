"""The directory behind a staging area: `<.staging of the destination's file system>/<task id>/`, mode 0700.

owner.<name>     who may change anything here: the attempt that opened it last
plan.json        the import's plan
journal          what is there and what it hashes to (see `journal`)
parts/<hash>     large files on their way, named by the hash of their path
tree/<path>      finished files, laid out as they will be published
publish.json …   a publish that began (see `publish`)
"""

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from pydantic import ValidationError

from proxy_client.errors import StorageFailure
from storage_proxy.storages.base import Digests, ImportPlan, PlannedFile
from storage_proxy.volumes import fsio
from storage_proxy.volumes.journal import Journal

TREE = "tree"
_OWNER = "owner."
PARTS = "parts"
_PLAN = "plan.json"
_LARGEST_PLAN = 1 << 30  # bytes


class Area:
    """The directory behind a staging area; every method blocks. Several may stand for the same directory."""

    def __init__(self, mount: Path, path: str, modes: fsio.Modes) -> None:
        self.mount = mount
        self.path = path
        self.modes = modes
        self.journal = Journal()
        self._owner = f"{_OWNER}{uuid4().hex}"

    @contextmanager
    def open(self) -> Iterator[int]:
        """Open the directory; FileNotFoundError if it is not there."""
        with fsio.trusted(self.mount) as mount, fsio.opened(mount, self.path) as area:
            yield area

    def make(self) -> None:
        """Make the directory when it is not there."""
        with fsio.trusted(self.mount) as mount:
            fsio.make_folders(mount, self.path, fsio.PRIVATE)
        with self.open() as area:
            fsio.make_folders(area, PARTS, fsio.PRIVATE)
            self.journal.refresh(area)

    def claim(self) -> None:
        """Let nobody else change anything here, until somebody else claims it."""
        with self.open() as area:
            # A rename takes no room: a full disk must not keep anybody from cleaning up.
            for name, _ in fsio.names(area):
                if name.startswith(_OWNER):
                    with suppress(FileNotFoundError):
                        fsio.rename(area, name, area, self._owner)
            if fsio.status(area, self._owner) is None:
                os.close(fsio.create(area, self._owner, fsio.PRIVATE))

    def insist_on_claim(self, area: int) -> None:
        """Raise `StorageFailure` if somebody claimed it since.

        A worker that stood still for longer than its lease does not know that another one has its import.
        """
        if fsio.status(area, self._owner) is None:
            raise StorageFailure("the import was taken over by another worker")

    def exists(self) -> bool:
        """Whether the directory is there."""
        with fsio.trusted(self.mount) as mount:
            return fsio.is_folder(mount, self.path)

    def remove(self) -> None:
        """Remove the directory with everything in it: at once for whoever looks, then piece by piece."""
        gone = f"{self.path}.gone"
        with fsio.trusted(self.mount) as mount:
            fsio.remove_tree(mount, gone)
            if fsio.is_folder(mount, self.path):
                fsio.rename_new(mount, self.path, mount, gone)
                fsio.remove_tree(mount, gone)
        self.journal = Journal()

    def load_plan(self) -> ImportPlan | None:
        """Read the plan."""
        with self.open() as area:
            text = fsio.read_small(area, _PLAN, _LARGEST_PLAN)
        try:
            return None if text is None else ImportPlan.model_validate_json(text)
        except ValidationError as exc:
            raise StorageFailure("the import's saved plan is damaged; import again") from exc

    def save_plan(self, plan: ImportPlan) -> None:
        """Write the plan."""
        earlier = self.load_plan()
        if earlier is not None and earlier.commit != plan.commit:
            raise StorageFailure(f"the staged bytes are of commit {earlier.commit}; discard them first")
        with self.open() as area:
            self.insist_on_claim(area)
            fsio.write_file(area, _PLAN, plan.model_dump_json().encode(), fsio.PRIVATE)

    def digests(self, files: Iterable[PlannedFile]) -> dict[str, Digests]:
        """Return what the finished ones of the files hash to, reading only those that the journal does not tell of."""
        found: dict[str, Digests] = {}
        with self.open() as area:
            self.journal.refresh(area)
            for file in files:
                identity = fsio.identity(area, f"{TREE}/{file.path}")
                if identity is None:
                    continue
                known = self.journal.finished(file.path, identity)
                if known is None or (file.wants_blob_id and known.blob_id is None):
                    known = self._read_digests(area, file)
                if known is not None:
                    found[file.path] = known
        return found

    def _read_digests(self, area: int, file: PlannedFile) -> Digests | None:
        try:
            fd = fsio.open_regular(area, f"{TREE}/{file.path}")
        except FileNotFoundError:
            return None
        try:
            found = fsio.digest(fd, blob_id=file.wants_blob_id)
            fsio.fdatasync(fd)  # whoever wrote it may have died before
            identity = fsio.Identity.of(os.fstat(fd))
        finally:
            os.close(fd)
        if found is not None:
            self.journal.record_finished(area, [(file.path, identity, found)])
        return found

    def drop(self, path: str) -> None:
        """Remove a file, finished or partial."""
        with self.open() as area:
            self.insist_on_claim(area)
            self.journal.record_drop(area, path)
            fsio.remove_tree(area, f"{TREE}/{path}")
            fsio.remove_tree(area, part_of(path))


def part_of(path: str) -> str:
    """Return where the partial file of `path` lies; hashed, since a part may be there before its folders."""
    return f"{PARTS}/{hashlib.sha256(path.encode()).hexdigest()}"
