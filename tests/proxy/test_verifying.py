"""Whatever a verifier does instead of looking, nothing is published: through the whole import, with real worker processes."""

import asyncio
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from migrations import migrate_proxy
from proxy_client.wire import Authorization, ImportReport, ImportState, Waiver
from storage_proxy.auth import ManagerAuthorizer
from storage_proxy.settings import load_settings
from storage_proxy.site import Site
from storage_proxy.worker import Worker
from tests.faults.hub import FaultHub
from tests.faults.models import digest_tree, make_model
from tests.proxy.test_jobs import SCHEMA, order
from tests.verifiers.samples_pickles import Harm, stack_global

pytestmark = pytest.mark.anyio
BROUGHT = """
[stowage.verifiers]
dying = tests.verifiers.verifiers_of_tests:Dying
hanging = tests.verifiers.verifiers_of_tests:Hanging
greedy = tests.verifiers.verifiers_of_tests:Greedy
blind = tests.verifiers.verifiers_of_tests:Blind
idle = tests.verifiers.verifiers_of_tests:Idle
"""


@dataclass
class Place:
    """Where one test's proxy has its files, and the hub from which they come."""

    directory: Path
    hub: FaultHub
    database_url: str

    async def bring(
        self, verification: str = "", registry: str = "", waivers: Sequence[Sequence[Waiver]] = ((),)
    ) -> ImportReport:
        """Import `org/name` by a worker with these settings of `[verification]` and its registry; return its last report.

        waivers: those in force each time that the manager is asked, the last ones from then on.
        """
        (self.directory / "proxy.toml").write_text(
            f"""
            [proxy]
            name = "local"
            database-file = "database"
            secret-file = "secret"
            manager-url = "http://manager.invalid"
            [artifact-storages.archive]
            path = "archive"
            [artifact-registries.hub]
            url = "{self.hub.url}"
            {registry}
            [verification]
            {verification}
            """
        )
        settings, asked, stop = load_settings(self.directory / "proxy.toml"), order(), asyncio.Event()
        answers = [
            Authorization(allowed=True, waivers=list(each)).model_dump(mode="json") for each in waivers
        ]

        def answer(_request: httpx.Request) -> httpx.Response:
            return httpx.Response(200, json=answers.pop(0) if len(answers) > 1 else answers[0])

        manager = httpx.MockTransport(answer)
        async with Site.open(settings) as opened:
            authorizer = ManagerAuthorizer(settings, transport=manager)
            site = replace(opened, pipeline=replace(opened.pipeline, authorizer=authorizer))
            await site.jobs.accept(asked)
            before = asyncio.all_tasks()
            worker = asyncio.create_task(Worker(site, stop).run())
            async with asyncio.timeout(60):
                while not (report := await site.jobs.report(asked.task_id)).state.terminal:
                    await asyncio.sleep(0.05)
            stop.set()
            await worker
            await authorizer.aclose()
            if left := asyncio.all_tasks() - before:
                await asyncio.wait(left, timeout=10)  # connections that are given back
        return report

    @property
    def visible(self) -> dict[str, str]:
        return digest_tree(self.directory / "archive" / "org")

    @property
    def staged(self) -> list[Path]:
        return [path for path in (self.directory / "archive").rglob(".staging/*") if path.is_dir()]


@pytest.fixture
async def place(
    tmp_path: Path, hub: FaultHub, proxy_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> Place:
    await migrate_proxy(proxy_database_url, SCHEMA)
    (tmp_path / "database").write_text(proxy_database_url)
    (tmp_path / "secret").write_text("s" * 40)
    (tmp_path / "archive").mkdir()
    brought = tmp_path / "brought" / "brought-1.0.dist-info"
    brought.mkdir(parents=True)
    (brought / "METADATA").write_text("Metadata-Version: 2.1\nName: brought\nVersion: 1.0\n")
    (brought / "entry_points.txt").write_text(BROUGHT)
    monkeypatch.syspath_prepend(str(brought.parent))
    return Place(tmp_path, hub, proxy_database_url)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[FaultHub]:
    (tmp_path / "hub").mkdir()
    with FaultHub(tmp_path / "hub") as hub:
        yield hub


MODEL = {"config.json": b"{}", "weights.bin": 100_000}


@pytest.mark.parametrize(
    ("name", "status", "reason"),
    [
        ("dying", "error", "its worker process died"),
        ("hanging", "error", "took too long"),
        ("greedy", "error", "MemoryError"),
        ("blind", "incomplete", ""),
        ("idle", "incomplete", ""),
    ],
)
async def test_a_verifier_that_does_not_look_lets_nothing_pass(
    place: Place, name: str, status: str, reason: str
) -> None:
    make_model(place.hub.directory, "org/name", MODEL)

    patience = "max-seconds = 1.0" if name == "hanging" else ""
    report = await place.bring(f'required = ["integrity", "{name}"]\noptional = []\n{patience}')

    assert (report.state, report.error and report.error.code) == (
        ImportState.FAILED,
        "VERIFICATION_INCOMPLETE",
    )
    assert place.visible == {}
    assert place.staged == []
    assert report.verification is not None
    assert report.verification.verdict == "incomplete"
    integrity, other = report.verification.verifiers
    assert (integrity.status, other.name, other.status, other.scanned) == ("clean", name, status, 0)
    assert reason in (other.error or "")


async def test_a_verifier_that_is_optional_may_fail(place: Place) -> None:
    digests = make_model(place.hub.directory, "org/name", MODEL)

    report = await place.bring('required = ["integrity", "structure"]\noptional = ["dying"]')

    assert report.state is ImportState.SUCCEEDED
    assert digest_tree(place.directory / "archive" / "org/name/main") == digests
    assert report.verification is not None
    assert report.verification.verifiers[-1].status == "error"


async def test_a_policy_publishes_what_is_flagged(place: Place) -> None:
    make_model(place.hub.directory, "org/name", {"modeling.py": b"import torch\n", "weights.bin": 1000})

    report = await place.bring("publish-flagged = true")

    assert report.state is ImportState.SUCCEEDED
    assert report.verification is not None
    assert report.verification.verdict == "flagged"


async def test_a_policy_lets_code_pass_or_blocks_it(place: Place) -> None:
    make_model(place.hub.directory, "org/name", {"modeling.py": b"import torch\n", "weights.bin": 1000})

    blocked = await place.bring('remote-code = "block"')
    allowed = await place.bring('remote-code = "allow"')

    assert blocked.error is not None
    assert blocked.error.code == "VERIFICATION_BLOCKED"
    assert allowed.state is ImportState.SUCCEEDED


async def test_a_registry_may_name_globals_of_its_own(place: Place) -> None:
    make_model(
        place.hub.directory,
        "org/name",
        {"args.pkl": b"\x80\x04" + stack_global("fractions", "Fraction") + b")R."},
    )

    refused = await place.bring()
    allowed = await place.bring(registry='allowed-globals = ["fractions Fraction"]')

    assert refused.error is not None
    assert refused.error.code == "VERIFICATION_BLOCKED"
    assert allowed.state is ImportState.SUCCEEDED


async def test_a_policy_lets_no_pickle_pass_or_any(place: Place) -> None:
    make_model(place.hub.directory, "org/name", {"state.pkl": pickle.dumps({"a": 1})})
    never = await place.bring('allow-pickle = "never"')
    make_model(place.hub.directory, "org/name", {"state.pkl": pickle.dumps(Harm())})
    every = await place.bring('allow-pickle = "any"')

    assert never.error is not None
    assert never.error.code == "VERIFICATION_BLOCKED"
    assert every.state is ImportState.SUCCEEDED


async def test_a_waiver_that_was_revoked_meanwhile_publishes_nothing(place: Place) -> None:
    make_model(place.hub.directory, "org/name", {"state.pkl": pickle.dumps(Harm())})
    waivers = [Waiver(id=uuid4(), verifier=name) for name in ("pickle", "picklescan")]

    revoked = await place.bring(waivers=[waivers, []])
    assert revoked.error is not None
    assert revoked.error.code == "VERIFICATION_BLOCKED"
    assert "not in force any more" in revoked.error.message
    assert place.visible == {}
    assert place.staged == []
    kept = await place.bring(waivers=[waivers])

    assert kept.state is ImportState.SUCCEEDED
    assert kept.verification is not None
    assert {found.waiver for verifier in kept.verification.verifiers for found in verifier.findings} == {
        waiver.id for waiver in waivers
    }
