"""Imports of models whose source changes, into folders whose quota changes, by workers that are killed and cancelled.

Hypothesis thinks of an order. A dictionary knows what has to be visible: the version that was published last, whole.
"""

import asyncio
import itertools
import os
import signal
import time
from collections.abc import Coroutine
from typing import Any, ClassVar, TypeVar
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from proxy_client.wire import ImportReport, ImportState
from tests.e2e.world import Files, Model
from tests.faults.hub import Rule
from tests.faults.models import seeded
from tests.proxy.running import OPEN, Proxy, remove_abandoned

pytestmark = pytest.mark.anyio

T = TypeVar("T")
STEPS = [
    ("folder", "folder", "folder"),
    ("a", "a", "a"),
    ("b", "folder", "folder"),
    ("a", "a", "bucket"),
    ("bucket", "b", "bucket"),
]
MODELS = 2
LARGE = 700_000
TINY = 1000  # bytes
ATTEMPTS = 10
HELD = Rule(path="/resolve/", stall_at=300_000)
CHANGED = {"SOURCE_CHANGED", "SOURCE_NOT_FOUND", "SOURCE_INVALID", "DIGEST_MISMATCH"}
Place = tuple[str, int]  # where a model lies: the storage of ARCHIVE, and which model

models = st.integers(0, MODELS - 1)


class Order:
    """An open import, and what happened since it was ordered."""

    def __init__(self, steps: tuple[str, str, str], *, tiny: bool) -> None:
        self.in_folder = "folder" in steps
        self.tiny = tiny
        self.changed = self.cancelled = False
        self.crashes = 0

    def insist_on_a_reason(self, report: ImportReport) -> None:
        """Hold that it may end like this."""
        if report.state is ImportState.CANCELLED:
            assert self.cancelled
        if report.state is ImportState.FAILED:
            assert report.error is not None
            reasons = CHANGED if self.changed else set()
            reasons |= {"QUOTA_EXCEEDED"} if self.tiny and self.in_folder else set()
            reasons |= {"ATTEMPTS_EXHAUSTED"} if self.crashes >= ATTEMPTS else set()
            assert report.error.code in reasons, (report.error, vars(self))


class Imports(RuleBasedStateMachine):
    """`visible` is what has to be seen, by place; `versions` are the digests of each commit there ever was."""

    proxy: ClassVar[Proxy]
    loop: ClassVar[asyncio.AbstractEventLoop]

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(120)

    @initialize()
    def begin(self) -> None:
        self.models: list[Model] = [self.proxy.model(_files()) for _ in range(MODELS)]
        self.versions: dict[str, dict[str, str]] = {}
        self.visible: dict[Place, dict[str, str]] = {}
        self.open: dict[Place, tuple[UUID, Order]] = {}
        self.tiny = False
        for number in range(MODELS):
            self._learn(number)

    def _learn(self, number: int) -> None:
        model = self.models[number]
        commit = self.run(self.proxy.site.registries["hub"].resolve(model.id, "main"))
        self.versions[commit] = model.digests

    def teardown(self) -> None:
        if not hasattr(self, "models"):
            return
        self.set_quota(tiny=False)
        self.settle()
        self.what_is_visible_is_whole()
        self.run(remove_abandoned(self.proxy))
        assert self.run(self.proxy.staged()) == []

    # What is asked for.

    @rule(number=models, steps=st.sampled_from(STEPS), force=st.booleans())
    def order(self, number: int, steps: tuple[str, str, str], *, force: bool) -> None:
        place = (steps[2], number)
        if place not in self.open:
            task_id = self.run(self.proxy.order(self.models[number], *steps, force=force))
            self.open[place] = (task_id, Order(steps, tiny=self.tiny))

    @rule(which=st.integers(0, 5))
    def cancel(self, which: int) -> None:
        # What is open depends on how quick the worker was, and what Hypothesis draws must not.
        for place in sorted(self.open)[which : which + 1]:
            task_id, order = self.open[place]
            order.cancelled = True
            self.run(self.proxy.site.jobs.request_cancel(task_id))

    # What happens.

    @rule()
    def hold(self) -> None:
        self.proxy.hub.set(HELD)

    @rule()
    def release(self) -> None:
        self.proxy.hub.clear()

    @rule(politely=st.booleans(), seconds=st.sampled_from([0.0, 0.05, 0.3]))
    def crash(self, seconds: float, *, politely: bool) -> None:
        time.sleep(seconds)
        for _, order in self.open.values():
            order.crashes += not politely
        self.proxy.kill_worker(signal.SIGTERM if politely else signal.SIGKILL)
        self.proxy.start_worker()

    @rule(number=models)
    def change(self, number: int) -> None:
        for (_, which), (_, order) in self.open.items():
            order.changed |= which == number
        self.models[number].becomes(_files())
        self._learn(number)

    @rule(tiny=st.booleans())
    def set_quota(self, *, tiny: bool) -> None:
        self.tiny = tiny
        for _, order in self.open.values():
            order.tiny |= tiny
        volume, scope = self.proxy.site.volume_pool.get_volume("one"), self.proxy.vfid.quota_scope
        self.run(volume.set_quota_scope(scope, TINY if tiny else None))

    @rule()
    def settle(self) -> None:
        """Let everything come to its end."""
        self.proxy.hub.clear()
        for task_id, _ in list(self.open.values()):
            self.run(self.proxy.ended(task_id, 100))
        self._look()

    # What has to be.

    def _look(self) -> None:
        for place, (task_id, order) in list(self.open.items()):
            report = self.run(self.proxy.site.jobs.report(task_id))
            if report.state in OPEN:
                continue
            del self.open[place]
            order.insist_on_a_reason(report)
            if report.state is ImportState.SUCCEEDED:
                self.visible[place] = self.versions[str(report.commit)]

    @invariant()
    def what_is_visible_is_whole(self) -> None:
        if not hasattr(self, "models"):
            return
        self._look()
        for place in itertools.product(("folder", "a", "bucket"), range(MODELS)):
            wanted = self.visible.get(place, {})
            if place not in self.open:
                assert self._seen(place) == wanted, place
            elif not wanted and place[0] != "bucket":
                assert self._seen(place, finished=False) in ({}, *self.versions.values()), "all at once"

    def _seen(self, place: Place, *, finished: bool = True) -> dict[str, str]:
        where, number = place
        return self.run(self.proxy.digests(where, self.models[number], finished=finished))


def _files() -> Files:
    """Return a version that differs from every other one."""
    version = uuid4().hex
    files: Files = {
        "config.json": b'{"version": "%s"}' % version.encode(),
        "weights/big.bin": seeded(version, LARGE),
        "empty": b"",
        "same.txt": b"the same in every version",
    }
    return files | {f"only/{version[:4]}.txt": version.encode()}


def some(examples: int, steps: int) -> settings:
    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        # One example lasts for seconds: the first failing one is shown as it is.
        phases=(Phase.explicit, Phase.reuse, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )


async def test_what_is_visible_is_what_was_published_last(proxy: Proxy) -> None:
    Imports.proxy, Imports.loop = proxy, asyncio.get_running_loop()
    await asyncio.to_thread(run_state_machine_as_test, Imports, settings=some(3, 12))


@pytest.mark.soak
@pytest.mark.timeout(1500)
async def test_soak_what_is_visible_is_what_was_published_last(proxy: Proxy) -> None:
    Imports.proxy, Imports.loop = proxy, asyncio.get_running_loop()
    over = time.monotonic() + float(os.environ.get("STOWAGE_SOAK_SECONDS", "600"))
    while time.monotonic() < over:
        await asyncio.to_thread(run_state_machine_as_test, Imports, settings=some(5, 30))
