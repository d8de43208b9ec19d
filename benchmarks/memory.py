"""A machine whose memory is ready: a virtual machine's host takes back what is free, and gives it page by page."""

import mmap
from pathlib import Path


def make_ready(size: int) -> None:
    """Touch as much free memory as a transfer of `size` bytes fills, so that no turn waits for the host's page faults.

    Where memory is the machine's own this changes nothing. Where a balloon reports free pages to the host, the first
    write to such a page costs ten times the write, and whoever happens to get them would seem slow.
    """
    wanted = min(size + size // 4 + (256 << 20), _available() // 2)
    with mmap.mmap(-1, wanted, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        for offset in range(0, wanted, mmap.PAGESIZE):
            memory[offset] = 1


def _available() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/meminfo does not tell what memory is available")
