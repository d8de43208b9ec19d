"""Which models a directory holds, and which folders are their branches and tags. Blocking."""

import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from urllib.parse import unquote

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from proxy_client.paths import MODEL_ID_PATTERN
from stowage.hub.errors import InvalidLayout, RepoNotFound

MANIFEST_NAME = ".hub.json"
MANIFEST_LIMIT = 1 << 20  # bytes
REF_NAME_LIMIT = 255  # characters

_ROOT = "."


def _ref_name(name: str) -> str:
    if not name or len(name) > REF_NAME_LIMIT or re.search(r"[\x00-\x20\x7f~^:?*\[\\\ud800-\udfff]", name):
        raise ValueError(f"{name[:80]!r} is no name of a branch or tag")
    if re.fullmatch(r"[0-9a-f]{40}", name):
        raise ValueError(f"{name!r} looks like a commit; choose another name")
    return name


def _folder(folder: str) -> str:
    if folder == _ROOT:
        return folder
    if not folder or "\0" in folder or any(part in {"", ".", ".."} for part in folder.split("/")):
        raise ValueError(f"{folder[:80]!r} is no relative folder; write it like 'weights/fp16', or '.'")
    return folder


RefName = Annotated[str, AfterValidator(_ref_name)]
Folder = Annotated[str, AfterValidator(_folder)]


class ModelManifest(BaseModel):
    """The optional `.hub.json` of a model."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    branches: dict[RefName, Folder] = {}
    tags: dict[RefName, Folder] = {}
    downloads: int = Field(default=0, ge=0)
    likes: int = Field(default=0, ge=0)
    labels: list[str] = []
    description: str | None = None

    @model_validator(mode="after")
    def _names_are_clear(self) -> "ModelManifest":
        if self.branches and "main" not in self.branches:
            raise ValueError("branches holds no 'main'; add it")
        if both := self.branches.keys() & self.tags.keys():
            raise ValueError(f"{min(both)!r} is a branch and a tag; rename one")
        return self


@dataclass(frozen=True, slots=True)
class Model:
    """A model with its refs: names mapped to folders beneath `path`, `.` for `path` itself."""

    id: str
    path: Path
    manifest: ModelManifest
    branches: dict[str, str]
    tags: dict[str, str]

    @property
    def author(self) -> str:
        """The first half of the id."""
        return self.id.partition("/")[0]

    @property
    def folders(self) -> set[str]:
        """Every folder that a ref names."""
        return {*self.branches.values(), *self.tags.values()}

    def folder_of(self, revision: str) -> str | None:
        """Return the folder of a branch or tag, by its name or its full ref; None for any other revision."""
        if (found := self.branches.get(revision.removeprefix("refs/heads/"))) is not None:
            return found
        return self.tags.get(revision.removeprefix("refs/tags/"))


def model_ids(directory: Path) -> Iterator[str]:
    """Yield the id of every folder `org/name`, in order."""
    for org in sorted(directory.iterdir()):
        if _is_folder(org):
            for name in sorted(org.iterdir()):
                model_id = f"{org.name}/{name.name}"
                if re.fullmatch(MODEL_ID_PATTERN, model_id) and _is_folder(name):
                    yield model_id


def read_model(directory: Path, model_id: str) -> Model:
    """Read a model's refs. Raises `RepoNotFound`, or `InvalidLayout` that says what to change."""
    path = directory / model_id
    if not (re.fullmatch(MODEL_ID_PATTERN, model_id) and _is_folder(path.parent) and _is_folder(path)):
        raise RepoNotFound("Repository not found")
    manifest = _read_manifest(path, model_id)
    branches = dict(manifest.branches) or _branches_by_name(path, model_id)
    model = Model(model_id, path, manifest, branches, dict(manifest.tags))
    for folder in model.folders - {_ROOT}:
        beneath = path
        for part in folder.split("/"):
            beneath /= part
            if not _is_folder(beneath):
                raise InvalidLayout(
                    f"{model_id}/{MANIFEST_NAME}: there is no folder {folder!r}; make it or name another"
                )
    return model


def _branches_by_name(path: Path, model_id: str) -> dict[str, str]:
    branches: dict[str, str] = {}
    plain_files = False
    for entry in path.iterdir():
        if entry.name.startswith("@") and _is_folder(entry):
            try:
                branch = _ref_name(unquote(entry.name[1:], errors="strict"))
            except ValueError as exc:
                raise InvalidLayout(f"{model_id}/{entry.name}: {exc}; rename the folder") from exc
            if branch in branches:
                raise InvalidLayout(f"{model_id}: two folders are named for branch {branch!r}; remove one")
            branches[branch] = entry.name
        elif not entry.name.startswith("."):
            plain_files = True
    if plain_files and "main" in branches:
        raise InvalidLayout(
            f"{model_id}: branch main is both @main and the files beside it; keep one of them"
        )
    return {"main": _ROOT} | branches


def _read_manifest(path: Path, model_id: str) -> ModelManifest:
    file = path / MANIFEST_NAME
    where = f"{model_id}/{MANIFEST_NAME}"
    try:
        details = file.lstat()
        if not stat.S_ISREG(details.st_mode) or details.st_size > MANIFEST_LIMIT:
            raise InvalidLayout(f"{where}: is no regular file of at most 1 MiB; replace it")
        return ModelManifest.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return ModelManifest()
    except OSError as exc:
        raise InvalidLayout(f"{where}: cannot be read ({exc.strerror}); check its permissions") from exc
    except ValidationError as exc:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc'])) or 'the file'}: {fault['msg'].removeprefix('Value error, ')}"
            for fault in exc.errors()
        )
        raise InvalidLayout(f"{where}: {faults}") from exc


def _is_folder(path: Path) -> bool:
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except (OSError, ValueError):
        return False
