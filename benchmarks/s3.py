"""The client of object storages beside obstore, against a real S3 server (Swift, `make swift`).

obstore is not among Stowage's own packages: it takes part where it is installed. The server is slower than either client and on
the same machine, so what tells them apart is what they cost: processor time and memory.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.content import Model, make_model, model_files, warm
from benchmarks.rivals import RivalFailed
from benchmarks.sources import running, wait_for
from stowage.processes import free_port

GIB = 1 << 30
_UP_WITHIN = 60.0  # seconds: four servers in Python
_ROOT = Path(__file__).parent.parent
_PYTHON = _ROOT / ".venv-swift" / "bin" / "python"
_KEYS = {"AWS_ACCESS_KEY_ID": "bench:bench", "AWS_SECRET_ACCESS_KEY": "bench-secret"}


@dataclass(frozen=True)
class Uploaded:
    """What one client took for some files: medians over the rounds, and the most memory of any."""

    client: str
    files: int
    size: int
    seconds: float
    cpu_seconds: float
    peak_rss: int


def measure(directory: Path, *, rounds: int, quick: bool, say: Callable[[str], None]) -> list[Uploaded]:
    """Measure. directory: as that of the transfers. Raises `RivalFailed`."""
    if not _PYTHON.exists():
        raise RivalFailed("the case s3 needs Swift: run make swift")
    content, work = directory / "content", directory / "work"
    shutil.rmtree(work, ignore_errors=True)
    say("Making the files of the case s3, unless they are there")
    models = [
        make_model(content, "large", model_files("large", slow=True, quick=quick)),
        # A quarter of the case small: Swift syncs every object, and takes ten times as long as either client.
        make_model(content, "small", model_files("small", slow=True, quick=True)),
    ]
    clients = ["stowage", *(["obstore"] if find_spec("obstore") else [])]
    try:
        work.mkdir(parents=True)
        listen = f"127.0.0.1:{(port := free_port())}"
        server = [str(_PYTHON), str(_ROOT / "docker" / "swift" / "serve.py"), "--data", str(work / "swift")]
        log = work / "swift.log"
        with running([*server, "--listen", listen, "--bucket", "bench"], log, os.environ | _KEYS):
            wait_for(port, log, _UP_WITHIN)
            asked = {"endpoint": f"http://{listen}", "bucket": "bench"}
            asked |= dict(zip(("key", "secret"), _KEYS.values(), strict=True))
            return [_measure(asked, model, client, rounds, say) for model in models for client in clients]
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _measure(
    asked: dict[str, str], model: Model, client: str, rounds: int, say: Callable[[str], None]
) -> Uploaded:
    took = []
    for number in range(rounds):
        say(f"s3, {len(model.files)} files, round {number + 1} of {rounds}: {client}")
        warm(model)
        took.append(_upload(client, asked | {"directory": str(model.directory)}))
    seconds, cpu_seconds = (
        statistics.median(each[name] for each in took) for name in ("seconds", "cpu_seconds")
    )
    return Uploaded(
        client, len(model.files), model.size, seconds, cpu_seconds, max(each["peak_rss"] for each in took)
    )


def _upload(client: str, asked: dict[str, str]) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.uploads", client],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RivalFailed(f"the upload by {client} ended with {done.returncode}: {done.stderr[-500:]}")
    told: dict[str, Any] = json.loads(done.stdout)
    return told
