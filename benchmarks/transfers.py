"""Stowage beside its rivals: same files, one source, one disk, taking turns."""

import hashlib
import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import stack
from benchmarks.bars import Bar
from benchmarks.content import Model, make_model, model_files, warm
from benchmarks.memory import FullCache
from benchmarks.rivals import RIVALS, timed
from benchmarks.sources import Source, serve

GIB = 1 << 30
CASES = ("large", "eight", "small", "model")
SOURCES = ("plain", "tls", "slow")
STOWAGE = "stowage"
# Who takes longer than this runs in the first round alone.
_PATIENCE = 30.0  # seconds
_MOST_RSS = 200_000_000  # bytes
_MOST_CPU = {"plain": 1.2, "tls": 1.7}  # seconds per GiB
# One connection at a time for thousands of files says nothing beside those that have 16.
_LEFT_OUT = {"small": {"curl"}}


@dataclass
class Result:
    """Everything measured of one case at one source; seconds by contender, one for each of its rounds."""

    case: str
    source: str
    files: int
    size: int
    seconds: dict[str, list[float]] = field(default_factory=dict)
    costs: list[stack.ImportCost] = field(default_factory=list)
    hashing: list[float] = field(default_factory=list)

    def median(self, contender: str) -> float:
        """Return the contender's median, in seconds."""
        return statistics.median(self.seconds[contender])

    def ratio(self, rival: str) -> float:
        """Return Stowage's time in times of the rival's; below 1 Stowage is faster."""
        return self.median(STOWAGE) / self.median(rival)

    @property
    def cpu_per_gib(self) -> float:
        """Return the worker's CPU-seconds for a GiB, the median."""
        return statistics.median(cost.cpu_seconds for cost in self.costs) * GIB / self.size

    @property
    def hash_per_gib(self) -> float:
        """Return the CPU-seconds that SHA-256 of a GiB took beside each import, from memory; the median."""
        return statistics.median(self.hashing)

    @property
    def peak_rss(self) -> int:
        """Return the most memory that the worker held in any round, in bytes."""
        return max(cost.peak_rss for cost in self.costs)

    @property
    def bars(self) -> list[Bar]:
        """Return the promises about this case that can be judged by who took part."""
        if STOWAGE not in self.seconds:
            return []
        found = [
            Bar(f"{STOWAGE} / {rival}", self.ratio(rival), limit)
            for rival, limit in self._limits().items()
            if rival in self.seconds
        ]
        if self.case in {"large", "eight"} and self.source in _MOST_CPU:
            found.append(Bar("worker CPU-s per GiB", self.cpu_per_gib, _MOST_CPU[self.source]))
        found.append(Bar("worker peak RSS, MB", self.peak_rss / 1e6, _MOST_RSS / 1e6))
        return found

    def _limits(self) -> dict[str, float]:
        if self.source == "slow":
            ahead = dict.fromkeys(RIVALS, 1.0)
            return ahead | ({"curl": 0.1} if self.case in {"large", "eight"} else {})
        if self.case in {"large", "eight"}:
            one_stream = 2.0 if self.source == "plain" else 1.7
            return {"curl": one_stream, "aria2c": 0.6, "snapshot_download": 0.35}
        if self.case == "small":
            return {"curl -Z": 1.8, "snapshot_download": 0.25}
        return {}


@dataclass(frozen=True)
class Course:
    """Who runs, how often, and who is told.

    directory: on the disk that is measured; `content` in it is kept for the next run, everything else is removed.
    done: takes each result as it is there. say: takes one line for people about what happens. profiles: directory
    for a profile of each import; a run with profiles tells where time goes, not how much it is.
    """

    directory: Path
    contenders: Sequence[str]
    rounds: int
    quick: bool
    done: Callable[[Result], None]
    say: Callable[[str], None]
    profiles: Path | None = None

    def run(self, cases: Sequence[str], sources: Sequence[str]) -> None:
        """Measure every case at every source. Raises `RivalFailed` and `StackFailed`."""
        shutil.rmtree(self._work, ignore_errors=True)
        models = {name: {case: self._model(case, name) for case in cases} for name in sources}
        served = {model.id: model for chosen in models.values() for model in chosen.values()}
        try:
            with (
                serve(self._work / "source", self._content, list(served.values())) as hub,
                FullCache(self._work / "holes") as cache,
            ):
                for name in sources:
                    with self._stack(hub[name]) as running:
                        for case, model in models[name].items():
                            self.done(self._run_case(hub[name], case, model, running, cache))
        finally:
            shutil.rmtree(self._work, ignore_errors=True)

    @property
    def _content(self) -> Path:
        return self.directory / "content"

    @property
    def _work(self) -> Path:
        return self.directory / "work"

    def _model(self, case: str, source: str) -> Model:
        self.say(f"Making the files of the case {case}, {source}, unless they are there")
        return make_model(self._content, case, model_files(case, slow=source == "slow", quick=self.quick))

    def _stack(self, source: Source) -> AbstractContextManager[stack.Stack | None]:
        if STOWAGE not in self.contenders:
            return nullcontext()
        return stack.running(self._work / f"stack-{source.name}", source)

    def _run_case(
        self, source: Source, case: str, model: Model, running: stack.Stack | None, cache: FullCache
    ) -> Result:
        result = Result(case, source.name, len(model.files), model.size)
        revision_id = running.scan(model) if running else ""
        taking_part = [name for name in self.contenders if name not in _LEFT_OUT.get(case, ())]
        for number in range(self.rounds):
            warm(model)
            # Everybody begins a round once before anybody begins a second one.
            turn = number % len(taking_part)
            for name in [*taking_part[turn:], *taking_part[:turn]]:
                seconds = result.seconds.setdefault(name, [])
                if seconds and seconds[0] > _PATIENCE:
                    continue
                self.say(f"{case}, {source.name}, round {number + 1} of {self.rounds}: {name}")
                cache.fill()
                if name == STOWAGE and running:
                    profile = self.profiles and self.profiles / f"{case}-{source.name}-{number + 1}.txt"
                    result.hashing.append(_hash_a_gib())
                    cost = running.measure(model, revision_id, profile)
                    result.costs.append(cost)
                    seconds.append(cost.seconds)
                else:
                    seconds.append(timed(RIVALS[name], source, model, self._work / "download"))
        return result


def _hash_a_gib() -> float:
    """Return the CPU-seconds of what no import can do without: processors differ by half, and so does one with its neighbours."""
    block, digest = bytes(1 << 19), hashlib.sha256()
    begun = time.process_time()
    for _ in range(GIB // len(block)):
        digest.update(block)
    return time.process_time() - begun
