"""One way to upload, in a process of its own, so that its processor time and memory are its own too.

`python -m benchmarks.uploads stowage|obstore < JSON` prints JSON: seconds, cpu_seconds, peak_rss (bytes). Every way
signs the SHA-256 of each body, which the server checks.
"""

import asyncio
import importlib
import itertools
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from storage_proxy.settings import S3StorageSection
from storage_proxy.storages.s3 import S3Client
from storage_proxy.storages.s3_signing import Credentials

PART = 16 << 20  # bytes
PARTS_AT_ONCE = 4
FILES_AT_ONCE = 16


def stowage(asked: dict[str, Any], files: list[Path], *, at_once: int) -> None:
    """Upload with the proxy's own client: parts as `UploadWriter` sends them, small files as single objects."""
    values = {
        "type": "s3",
        "endpoint": asked["endpoint"],
        "bucket": asked["bucket"],
        "parallel_parts": at_once,
    }
    credentials = Credentials(asked["key"], asked["secret"])
    client = S3Client(S3StorageSection.model_validate(values), "the bucket", lambda: credentials)

    def put(file: Path) -> None:
        client.put(f"stowage/{file.name}", file.read_bytes())

    try:
        if len(files) > 1:
            client.side_by_side(put, files)
            return
        (file,) = files
        upload_id = client.create_upload(f"stowage/{file.name}", {})
        with file.open("rb", buffering=0) as content:

            def part(number: int) -> tuple[int, str]:
                buffer = bytearray(min(PART, size - (number - 1) * PART))
                os.preadv(content.fileno(), [buffer], (number - 1) * PART)
                return number, client.upload_part(f"stowage/{file.name}", upload_id, number, buffer)

            size = file.stat().st_size
            parts = client.side_by_side(part, range(1, -(-size // PART) + 1))
        client.complete(f"stowage/{file.name}", upload_id, parts)
    finally:
        client.close()


def obstore(asked: dict[str, Any], files: list[Path], *, at_once: int) -> None:
    """Upload with obstore, object_store of the Arrow project in Rust."""
    library: Any = importlib.import_module("obstore")
    store = library.store.S3Store(
        asked["bucket"],
        endpoint=asked["endpoint"],
        access_key_id=asked["key"],
        secret_access_key=asked["secret"],
        region="us-east-1",
        virtual_hosted_style_request=False,
        client_options={"allow_http": True},
    )

    async def put_all() -> None:
        room = asyncio.Semaphore(at_once)

        async def put(name: str, content: bytes) -> None:
            async with room:
                await library.put_async(store, f"obstore/{name}", content)

        await asyncio.gather(*itertools.starmap(put, ((file.name, file.read_bytes()) for file in files)))

    if len(files) > 1:
        asyncio.run(put_all())
        return
    (file,) = files
    library.put(store, f"obstore/{file.name}", file, chunk_size=PART, max_concurrency=at_once)


def _peak_rss() -> int:
    # getrusage's figure begins with that of the process that started this one.
    (line,) = [
        line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")
    ]
    return int(line.split()[1]) * 1024


def main() -> None:
    """Upload what stdin asks for, and print what it took."""
    ways = {"stowage": stowage, "obstore": obstore}
    asked = json.load(sys.stdin)
    files = sorted(Path(asked["directory"]).rglob("*.*"))
    before, begun = time.process_time(), time.perf_counter()
    ways[sys.argv[1]](asked, files, at_once=PARTS_AT_ONCE if len(files) == 1 else FILES_AT_ONCE)
    told = {
        "seconds": time.perf_counter() - begun,
        "cpu_seconds": time.process_time() - before,
        "peak_rss": _peak_rss(),
    }
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    main()
