"""Models to import in tests: seeded content, and digests to compare with."""

import hashlib
import random
from collections.abc import Mapping
from pathlib import Path

BLOCK = 1 << 20


def seeded(seed: str, size: int) -> bytes:
    """Return `size` bytes that are the same for the same seed, and alike nowhere within."""
    blocks = (
        random.Random(f"{seed}:{start}").randbytes(min(BLOCK, size - start))  # noqa: S311 -- not for secrets
        for start in range(0, size, BLOCK)
    )
    return b"".join(blocks)


def make_model(
    directory: Path, model_id: str, files: Mapping[str, bytes | int], *, branch: str | None = None
) -> dict[str, str]:
    """Write a model beneath a hub's directory; a number stands for so many seeded bytes.

    Without `branch` the files are branch main's, beside those that are there already. Returns what `digest_tree`
    says of the files when they have arrived.
    """
    root = directory / model_id
    if branch is not None:
        root /= f"@{branch.replace('%', '%25').replace('/', '%2F')}"
    root.mkdir(parents=True, exist_ok=True)
    digests = {}
    for path, content in files.items():
        data = (
            seeded(f"{model_id}@{branch or 'main'}:{path}", content) if isinstance(content, int) else content
        )
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        digests[path] = hashlib.sha256(data).hexdigest()
    return digests


def digest_tree(root: Path) -> dict[str, str]:
    """Return the sha256 of every regular file beneath `root` by relative path; Stowage's own and the hub's aside."""
    digests = {}
    for file in sorted(root.rglob("*")):
        path = file.relative_to(root)
        if file.is_symlink() or not file.is_file() or path.parts[0].startswith("@"):
            continue
        if ".stowage" not in path.parts and path.name != ".hub.json":
            with file.open("rb") as opened:
                digests[path.as_posix()] = hashlib.file_digest(opened, "sha256").hexdigest()
    return digests
