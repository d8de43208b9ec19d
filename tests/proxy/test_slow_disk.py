"""A6: a disk that is slower than the source does not make memory grow."""

import asyncio
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.proxy.running import MIB, Proxy
from tests.storages.strace import needs_strace

pytestmark = [pytest.mark.anyio, needs_strace]

BUCKETS = ()
SIZE = 160 * MIB
GROWTH = 64 * MIB


@contextmanager
def slow_writes(pid: int, milliseconds: int) -> Iterator[None]:
    """Let every write of a buffer into a file take so much longer, and one of seven buffers seven times as much."""
    slower = [
        f"--inject={call}:delay_enter={times * milliseconds * 1000}"
        for call, times in (("pwrite64", 1), ("pwritev", 7), ("pwritev2", 7))
    ]
    command = [
        "strace",
        "-f",
        "-o",
        "/dev/null",
        "--trace=pwrite64,pwritev,pwritev2",
        *slower,
        "-p",
        str(pid),
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
        assert tracer.stderr is not None
        attached = tracer.stderr.readline()
        if "attached" not in attached:
            pytest.skip(f"strace may not trace here: {attached}")
        try:
            yield
        finally:
            tracer.terminate()


def memory(process: Path, name: str) -> int:
    """Return a figure of proc(5), in bytes."""
    status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
    return int(status[name].split()[0]) * 1024


async def test_memory_stays_flat_with_a_slow_disk(proxy: Proxy) -> None:
    await proxy.succeeded(
        await proxy.order(proxy.model({"first.bin": 9 * MIB}), "folder", "folder", "folder")
    )
    model = proxy.model({"big.bin": SIZE})
    assert proxy.worker is not None
    process = Path(f"/proc/{proxy.worker.pid}")
    (process / "clear_refs").write_text("5")  # proc(5): begin the peak anew
    before = memory(process, "VmRSS")

    with slow_writes(proxy.worker.pid, 20):
        task_id = await proxy.order(model, "folder", "folder", "folder")
        await proxy.until(lambda: proxy.hub.sent(model.id))
        await asyncio.sleep(1)
        assert proxy.hub.sent(model.id) < SIZE, "the disk is the slower one"
        await proxy.succeeded(task_id)

    assert memory(process, "VmHWM") - before < GROWTH
    assert await proxy.digests("folder", model) == model.digests
