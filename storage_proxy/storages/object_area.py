"""The objects behind one import's staging area, below `<prefix>/.staging/<task id>/`.

owner                            who may change anything here: the attempt that opened it last
plan.json                        the import's plan
files/<hash>/piece-<n>           a file on its way, by pieces; <hash> is that of its path
files/<hash>/upload              a file on its way, by a multipart upload to where it will be published: which one
files/<hash>/whole-<digests>     a finished file
files/<hash>/done-<digests>      a finished file that is still in its pieces, or in the parts of its upload
displaced/<hash>, publish.json … a publish that began (see `object_publish`)

A name tells size, SHA-256 and Git's id, so that one listing tells everything that is staged.
"""

import hashlib
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from uuid import UUID, uuid4

from pydantic import BaseModel, ConfigDict, ValidationError

from proxy_client.errors import PathRefused, StorageFailure
from storage_proxy.storages.base import PIECE, STAGING_FOLDER, Digests, ImportPlan, PlannedFile
from storage_proxy.storages.s3 import MOST_PARTS, S3Client
from storage_proxy.storages.s3_answers import NoSuchUpload, Part
from storage_proxy.storages.s3_requests import Body
from storage_proxy.volumes.paths import ROOT, check_path, join, shown

LONGEST_KEY = 1024  # bytes; the protocol's own limit
RECORD = "publish.json"
COMMITTED = "published.json"

_OWNER = "owner"
_PLAN = "plan.json"
_FILES = "files/"
_LARGEST_RECORD = 256 << 20  # bytes


@dataclass(frozen=True)
class Keys:
    """Which keys of the bucket a storage uses; `prefix` is a folder in it, "" for all of it."""

    prefix: str

    @property
    def root(self) -> str:
        """What every key begins with: "", or something that ends with "/"."""
        return f"{self.prefix}/" if self.prefix else ""

    @property
    def staging(self) -> str:
        """What every staged key begins with."""
        return f"{self.root}{STAGING_FOLDER}/"

    def of(self, path: str) -> str:
        """Return the key of a visible file. Raises `PathRefused` if the protocol has no such key."""
        key = f"{self.root}{path}"
        if len(key.encode()) > LONGEST_KEY:
            raise PathRefused(
                f"the path {shown(path)} is refused: its key is longer than {LONGEST_KEY} bytes"
            )
        return key

    def below(self, path: str) -> str:
        """Return what the keys of everything in a folder begin with, and those of no folder beside it."""
        return self.root if path == ROOT else f"{self.root}{path}/"

    def area(self, task_id: UUID) -> str:
        """Return what the keys of an import's staging area begin with."""
        return f"{self.staging}{task_id}/"


def part_size(size: int, least: int) -> int:
    """Return the size of the parts of a file: a multiple of `PIECE`, so large that the protocol's limit is not met."""
    wanted = max(least, -(-size // MOST_PARTS))
    return -(-wanted // PIECE) * PIECE


class Source(BaseModel):
    """What `upload` and `done-…` hold: the upload, or, where `upload_id` is empty, the size of the pieces."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    part_size: int
    key: str = ""
    upload_id: str = ""
    parts: tuple[tuple[int, str], ...] = ()


@dataclass
class Entry:
    """What lies in the area of one file. Sizes in bytes."""

    whole: tuple[str, Digests] | None = None
    done: tuple[str, Digests] | None = None
    upload: bool = False
    pieces: dict[int, int] = field(default_factory=dict)

    @property
    def digests(self) -> Digests | None:
        """What the finished file hashes to."""
        finished = self.whole or self.done
        return finished[1] if finished else None


class Hashes:
    """The digests of bytes that come in order."""

    def __init__(self, size: int, *, blob_id: bool) -> None:
        self.size = 0
        self._sha256 = hashlib.sha256()
        self._blob = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False) if blob_id else None

    def update(self, data: Body) -> None:
        """Go on."""
        self.size += len(data)
        self._sha256.update(data)
        if self._blob is not None:
            self._blob.update(data)

    def digests(self) -> Digests:
        """Return what was hashed so far."""
        blob_id = self._blob.hexdigest() if self._blob is not None else None
        return Digests(self.size, self._sha256.hexdigest(), blob_id)


def digests_of(content: Body, *, blob_id: bool) -> Digests:
    """Hash bytes at hand."""
    hashes = Hashes(len(content), blob_id=blob_id)
    hashes.update(content)
    return hashes.digests()


class ObjectArea:
    """What lies in one staging area, and who may change it; every method blocks.

    What is there is listed once, when it is claimed: from then on nobody else changes it. A method without a claim
    (`look`) sees what is there now.
    """

    def __init__(self, client: S3Client, keys: Keys, task_id: UUID) -> None:
        self.client = client
        self.keys = keys
        self.task_id = task_id
        self.root = keys.area(task_id)
        self._owner = uuid4().hex.encode()
        self._lock = threading.Lock()
        self._entries: dict[str, Entry] = {}

    # Whose it is.

    def claim(self) -> None:
        """Let nobody else change anything here, until somebody else claims it; and look at what is there."""
        self.client.put(f"{self.root}{_OWNER}", self._owner)
        self.look()

    def insist_on_claim(self) -> None:
        """Raise `StorageFailure` if somebody claimed or removed it since."""
        if self.client.get_small(f"{self.root}{_OWNER}", len(self._owner)) != self._owner:
            raise StorageFailure("the import was taken over by another worker")

    def exists(self) -> bool:
        """Whether anything is there."""
        return any(True for _ in self.client.objects(self.root, first=1))

    def look(self) -> None:
        """List what is staged."""
        entries: dict[str, Entry] = {}
        start = f"{self.root}{_FILES}"
        for found in self.client.objects(start):
            name, _, what = found.key.removeprefix(start).partition("/")
            entry = entries.setdefault(name, Entry())
            kind, _, rest = what.partition("-")
            if kind == "piece" and rest.isdecimal():
                entry.pieces[int(rest)] = found.size
            elif kind == "upload":
                entry.upload = True
            elif (digests := _read_digests(rest)) is not None and kind == "whole":
                if digests.size == found.size:
                    entry.whole = (found.key, digests)
            elif digests is not None and kind == "done":
                entry.done = (found.key, digests)
        with self._lock:
            self._entries = entries

    def remove(self) -> None:
        """Abort the uploads and remove every object. May be repeated."""
        self.look()
        for name, entry in list(self._entries.items()):
            if entry.upload:
                self._abort(name)
        keys = [found.key for found in self.client.objects(self.root)]
        # The owner goes first: whoever still works here finds out.
        keys.sort(key=lambda key: key != f"{self.root}{_OWNER}")
        self.client.delete_many(keys)
        with self._lock:
            self._entries = {}

    # Small records.

    def load(self, name: str) -> bytes | None:
        """Read a record."""
        return self.client.get_small(f"{self.root}{name}", _LARGEST_RECORD)

    def save(self, name: str, content: bytes) -> None:
        """Write a record."""
        self.client.put(f"{self.root}{name}", content)

    def has(self, name: str) -> bool:
        """Whether there is such a record."""
        return self.client.head(f"{self.root}{name}") is not None

    def forget(self, name: str) -> None:
        """Remove a record."""
        self.client.delete(f"{self.root}{name}")

    def load_plan(self) -> ImportPlan | None:
        """Read the plan."""
        content = self.load(_PLAN)
        try:
            return None if content is None else ImportPlan.model_validate_json(content)
        except ValidationError as exc:
            raise StorageFailure("the import's saved plan is damaged; import again") from exc

    def save_plan(self, plan: ImportPlan) -> None:
        """Write the plan."""
        earlier = self.load_plan()
        if earlier is not None and earlier.commit != plan.commit:
            raise StorageFailure(f"the staged bytes are of commit {earlier.commit}; discard them first")
        self.insist_on_claim()
        self.save(_PLAN, plan.model_dump_json().encode())

    # Files.

    def entry(self, path: str) -> Entry:
        """Return what lies here of a file. Raises `PathRefused`."""
        with self._lock:
            return self._entries.setdefault(_name(check_path(path)), Entry())

    def folder(self, path: str) -> str:
        """Return what the keys of a file's objects begin with."""
        return f"{self.root}{_FILES}{_name(path)}/"

    def piece_key(self, path: str, number: int) -> str:
        """Return the key of a piece; numbers begin with 0."""
        return f"{self.folder(path)}piece-{number:08d}"

    def displaced_key(self, path: str) -> str:
        """Return the key where the object waits that a publish replaces."""
        return f"{self.root}displaced/{_name(path)}"

    def metadata(self, digests: Digests | None) -> dict[str, str]:
        """Return what is written on an object that this import publishes."""
        known = {} if digests is None else {"stowage-sha256": digests.sha256}
        return {"stowage-task": str(self.task_id), **known}

    def put_whole(self, path: str, content: Body, digests: Digests) -> None:
        """Write a finished file in one piece."""
        entry = self.entry(path)
        key = f"{self.folder(path)}whole-{_write_digests(digests)}"
        self.client.put(key, content, sha256=digests.sha256)
        stale = {place[0] for place in (entry.whole, entry.done) if place} - {key}
        entry.whole, entry.done = (key, digests), None
        for old in stale:
            self.client.delete(old)

    def take_whole(self, path: str, source: str, digests: Digests) -> None:
        """Let a copy of an object be the finished file, in place of what is there of it."""
        key = f"{self.folder(path)}whole-{_write_digests(digests)}"
        self.client.copy(source, key, digests.size, {})
        entry = self.entry(path)
        rest = [name for name in self._keys_of(path) if name != key]
        entry.whole, entry.done, entry.upload, entry.pieces = (key, digests), None, False, {}
        self.client.delete_many(rest)

    def put_done(self, path: str, source: Source, digests: Digests) -> None:
        """Note that a file is finished, and of what it is made."""
        key = f"{self.folder(path)}done-{_write_digests(digests)}"
        self.client.put(key, source.model_dump_json().encode())
        self.entry(path).done = (key, digests)

    def read_done(self, path: str) -> Source:
        """Return what a finished file is made of."""
        done = self.entry(path).done
        return self._read_source(path, None if done is None else done[0])

    def begin_upload(
        self, path: str, key: str, size: int, sha256: str | None
    ) -> tuple[Source, dict[int, Part]]:
        """Return the upload of a file to its place, begun when there is none, with the parts that are there."""
        entry = self.entry(path)
        record = f"{self.folder(path)}upload"
        if entry.upload:
            source = self._read_source(path, record)
            with suppress(NoSuchUpload):
                parts = self.client.list_parts(source.key, source.upload_id)
                if source.key == key:
                    return source, {part.number: part for part in parts}
                self.client.abort(source.key, source.upload_id)
        known = None if sha256 is None else Digests(size, sha256)
        upload_id = self.client.create_upload(key, self.metadata(known))
        source = Source(part_size=0, key=key, upload_id=upload_id)
        self.client.put(record, source.model_dump_json().encode())
        entry.upload = True
        return source, {}

    def _read_source(self, path: str, key: str | None) -> Source:
        content = None if key is None else self.client.get_small(key, _LARGEST_RECORD)
        if content is None:
            raise StorageFailure(f"the staged file {shown(path)} is gone; import again")
        try:
            return Source.model_validate_json(content)
        except ValidationError as exc:
            raise StorageFailure(f"what is staged of {shown(path)} is damaged; import again") from exc

    def _abort(self, name: str) -> None:
        key = f"{self.root}{_FILES}{name}/upload"
        content = self.client.get_small(key, _LARGEST_RECORD)
        if content is not None:
            try:
                source = Source.model_validate_json(content)
            except ValidationError:
                return  # it is aborted by its age
            if source.upload_id:
                self.client.abort(source.key, source.upload_id)

    def _keys_of(self, path: str) -> list[str]:
        return [found.key for found in self.client.objects(self.folder(path))]

    def drop(self, path: str) -> None:
        """Remove whatever is there of a file."""
        entry = self.entry(path)
        if entry == Entry():
            return
        self.insist_on_claim()
        if entry.upload:
            self._abort(_name(path))
        self.client.delete_many(self._keys_of(path))
        entry.whole = entry.done = None
        entry.upload, entry.pieces = False, {}

    def digests(self, file: PlannedFile) -> Digests | None:
        """Return what a finished file hashes to; it is read again only for an id of Git's that nobody asked for before."""
        found = self.entry(file.path).digests
        if found is None or found.blob_id is not None or not file.wants_blob_id:
            return found
        hashes = Hashes(found.size, blob_id=True)
        for chunk in self.stream(file.path):
            hashes.update(chunk)
        return hashes.digests()

    def stream(self, path: str) -> Iterator[bytes]:
        """Yield a finished file in chunks of at most 1 MiB."""
        entry = self.entry(path)
        if entry.whole is not None:
            yield from self.client.stream(entry.whole[0])
            return
        source = self.read_done(path)
        if source.upload_id:
            raise StorageFailure(f"{shown(path)} is on its way to its place and cannot be read before")
        for number in range(-(-entry.done[1].size // source.part_size) if entry.done else 0):
            yield from self.client.stream(self.piece_key(path, number))

    def uploads(self) -> Iterable[str]:
        """Yield the ids of the uploads that are on record here."""
        for name, entry in list(self._entries.items()):
            if entry.upload:
                content = self.client.get_small(f"{self.root}{_FILES}{name}/upload", _LARGEST_RECORD)
                if content is not None and (upload_id := Source.model_validate_json(content).upload_id):
                    yield upload_id


def check_keys(keys: Keys, plan: ImportPlan) -> None:
    """Raise `PathRefused` if the protocol has no key for a file of the plan."""
    for file in plan.files:
        keys.of(join(plan.path, file.path))


def _name(path: str) -> str:
    return hashlib.sha256(path.encode()).hexdigest()[:40]


def _write_digests(digests: Digests) -> str:
    return f"{digests.size}-{digests.sha256}-{digests.blob_id or 'none'}"


def _read_digests(text: str) -> Digests | None:
    try:
        size, sha256, blob_id = text.split("-")
        return Digests(int(size), sha256, None if blob_id == "none" else blob_id)
    except ValueError:
        return None
