"""What the verifiers cost: beside the import that they are part of, over many small pickles, and in memory over a large one."""

import os
import pickle
import random
import shutil
import statistics
import subprocess
import sys
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks import stack
from benchmarks.bars import Bar
from benchmarks.content import make_model, model_files, warm
from benchmarks.memory import FullCache
from benchmarks.sources import serve

PICKLES = 1000
_MOST_SHARE = 0.05
_MOST_SECONDS = 2.0
_MOST_MIB = 256
_MIB = 1 << 20
_VALUE = 1 << 20  # bytes of each value in the large pickle


class VerificationFailed(Exception):
    """`stowage verify` did not call harmless files clean."""


@dataclass(frozen=True)
class Verified:
    """Medians in seconds. start: `stowage verify` of one file of two bytes. model: of one of `size` bytes in 8 safetensors
    files; imported: the whole import of that model. pickles: `stowage verify` of 1,000 small pickles. memory: MiB that the
    largest process of `stowage verify` had over one pickle of `large` bytes.
    """

    size: int
    start: float
    model: float
    imported: float
    pickles: float
    large: int
    memory: float

    @property
    def bars(self) -> list[Bar]:
        """Return the promises."""
        return [
            Bar("verifiers' share of an import", (self.model - self.start) / self.imported, _MOST_SHARE),
            Bar(f"stowage verify of {PICKLES} pickles, s", self.pickles, _MOST_SECONDS),
            Bar(f"memory of verifying a pickle of {self.large / _MIB:,.0f} MiB, MiB", self.memory, _MOST_MIB),
        ]


def measure(directory: Path, *, rounds: int, quick: bool, say: Callable[[str], None]) -> Verified:
    """Measure. directory: as that of the transfers. Raises `StackFailed` and `VerificationFailed`."""
    content, work = directory / "content", directory / "work"
    shutil.rmtree(work, ignore_errors=True)
    say("Making the files of the case verify, unless they are there")
    model = make_model(content, "eight", model_files("eight", slow=False, quick=quick))
    pickles, least = content / "pickles", work / "least"
    least.mkdir(parents=True)
    (least / "config.json").write_text("{}")
    _make_pickles(pickles)
    large = content / "large"
    size = _make_large_pickle(large, values=64 if quick else 2048)
    took: dict[str, list[float]] = {"start": [], "model": [], "imported": [], "pickles": []}
    try:
        with (
            serve(work / "source", content, [model]) as sources,
            stack.running(work / "stack", sources["plain"]) as running,
            FullCache(work / "holes") as cache,
        ):
            revision_id = running.scan(model)
            for number in range(rounds):
                say(f"verify, round {number + 1} of {rounds}")
                warm(model)
                cache.fill()
                took["imported"].append(running.measure(model, revision_id).seconds)
                for name, place in (("start", least), ("model", model.directory), ("pickles", pickles)):
                    took[name].append(_verify(place))
        memory = _memory(large)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    medians = {name: statistics.median(seconds) for name, seconds in took.items()}
    return Verified(model.size, **medians, large=size, memory=memory)


def _verify(place: Path) -> float:
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "stowage", "verify", str(place)], capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - begun
    if done.returncode:
        raise VerificationFailed(f"stowage verify ended with {done.returncode}: {done.stdout[-1000:]}")
    return seconds


def _memory(place: Path) -> float:
    """Return the MiB of the largest process of `stowage verify`, those in which it parses files included."""
    command = [sys.executable, "-m", "stowage", "verify", str(place)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
        _, status, used = os.wait4(running.pid, 0)
        running.returncode = os.waitstatus_to_exitcode(status)
    if running.returncode:
        raise VerificationFailed(f"stowage verify ended with {running.returncode}")
    return used.ru_maxrss / 1024


def _make_large_pickle(directory: Path, *, values: int) -> int:
    """Write one pickle of large values, as a state dictionary of arrays is; return its bytes."""
    directory.mkdir(parents=True, exist_ok=True)
    value = b"B" + _VALUE.to_bytes(4, "little") + random.Random(values).randbytes(_VALUE)  # noqa: S311 -- as below
    place = directory / "large.pkl"
    size = 4 + values * len(value) + 2
    if not place.exists() or place.stat().st_size != size:
        with place.open("wb") as opened:
            opened.write(b"\x80\x03](")
            for _ in range(values):
                opened.write(value)
            opened.write(b"e.")
    return size


def _make_pickles(directory: Path) -> None:
    """Write small state dictionaries as training scripts leave them, other ones in each."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    generator = random.Random(PICKLES)  # noqa: S311 -- the same bytes at every run, and no secret
    for number in range(PICKLES):
        state = OrderedDict((f"layer.{n}.bias", [generator.random() for _ in range(20)]) for n in range(20))
        content = pickle.dumps({"epoch": number, "state": state}, protocol=2 + number % 4)
        (directory / f"{number:04}.pkl").write_bytes(content)
