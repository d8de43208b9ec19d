"""The worker's memory does not grow with what it imports."""

import hashlib
from pathlib import Path

import pytest

from tests.e2e.world import Files
from tests.faults.imports import Site

MIB = 1 << 20
LIMIT = 200 * MIB


@pytest.mark.parametrize(
    ("large", "small"),
    [(448, 8), pytest.param(2048, 2000, marks=[pytest.mark.soak, pytest.mark.timeout(600)])],
)
def test_it_stays_flat_over_large_and_many_files(site: Site, large: int, small: int) -> None:
    """`large`: MiB of one file; `small`: so many others of the same total, or of 8 MiB."""
    site.no_more_workers()
    size = min(8 * MIB, large * MIB // small)
    files: Files = {f"{number}.bin": size for number in range(small)}
    model = site.model(files)
    sparse = model.path / "large.bin"
    with sparse.open("wb") as file:
        file.truncate(large * MIB)
    with sparse.open("rb") as file:
        model.digests["large.bin"] = hashlib.file_digest(file, "sha256").hexdigest()
    revision, folder = site.scan(model)["id"], site.folder()
    worker = Path(f"/proc/{site.stack.pids['worker']}")
    (worker / "clear_refs").write_text("5")  # proc(5): begin the peak anew

    imported = site.order_one(model, revision, folder)

    site.insist_on_success(imported, 300)
    status = dict(line.split(":", 1) for line in (worker / "status").read_text().splitlines())
    assert int(status["VmHWM"].split()[0]) * 1024 < LIMIT
    sparse.unlink()
    (imported.destination / "large.bin").unlink()
