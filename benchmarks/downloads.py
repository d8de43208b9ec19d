"""The rivals that are Python: each a process of its own that prints how many seconds its download took.

`python -m benchmarks.downloads snapshot|httpx DIRECTORY < JSON`; starting Python is not counted.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any


def snapshot(asked: dict[str, Any], directory: Path) -> float:
    """Download with the official client, as its users call it, into a cache of its own."""
    os.environ |= {
        "HF_ENDPOINT": asked["endpoint"],
        "HF_HOME": str(directory),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    from huggingface_hub import snapshot_download  # noqa: PLC0415 -- it reads the environment when imported

    begun = time.perf_counter()
    snapshot_download(asked["model"], cache_dir=directory)
    return time.perf_counter() - begun


def one_by_one(asked: dict[str, Any], directory: Path) -> float:
    """Download one file after the other over one kept connection: the simplest thing that works."""
    import httpx  # noqa: PLC0415 -- as above: the other rival must not pay for it

    begun = time.perf_counter()
    with httpx.Client() as client:
        for path, url in asked["urls"].items():
            target = directory / path
            target.parent.mkdir(parents=True, exist_ok=True)
            with client.stream("GET", url) as answer, target.open("wb") as file:
                answer.raise_for_status()
                for chunk in answer.iter_raw():
                    file.write(chunk)
    return time.perf_counter() - begun


def main() -> None:
    """Download what stdin asks for, and print the seconds."""
    ways = {"snapshot": snapshot, "httpx": one_by_one}
    seconds = ways[sys.argv[1]](json.load(sys.stdin), Path(sys.argv[2]))
    sys.stdout.write(f"{seconds}\n")


if __name__ == "__main__":
    main()
