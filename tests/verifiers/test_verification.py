import asyncio
from functools import partial
from pathlib import Path
from typing import BinaryIO

import pytest

from proxy_client.wire import VerificationReport, VerifierReport
from storage_proxy.storages.base import Digests, PlannedFile
from storage_proxy.verifiers.base import AbstractVerifier, FileResult, StagedFile
from storage_proxy.verifiers.integrity import IntegrityVerifier
from storage_proxy.verifiers.policy import Limits, Policy
from storage_proxy.verifiers.sandbox import Sandbox
from storage_proxy.verifiers.verification import MOST_FINDINGS, Verification
from tests.verifiers.verifiers_of_tests import (
    Asking,
    Dying,
    Greedy,
    Hanging,
    Obeying,
    Prober,
    Reader,
    finding,
)

pytestmark = pytest.mark.anyio

CONTENT = b"content"
DIGESTS = Digests(size=7, sha256="right")


def staged(path: str = "a", digests: Digests | None = DIGESTS) -> StagedFile:
    def open_() -> BinaryIO:
        raise FileNotFoundError

    return StagedFile(path, len(CONTENT), digests, open_)


@pytest.fixture
def file(tmp_path: Path) -> StagedFile:
    (tmp_path / "file").write_bytes(CONTENT)
    return StagedFile("a", len(CONTENT), DIGESTS, lambda: (tmp_path / "file").open("rb"))


def planned(*paths: str) -> list[PlannedFile]:
    return [PlannedFile(path=path, size=7, sha256="right") for path in paths]


async def run(
    *verifiers: AbstractVerifier,
    files: list[StagedFile] | None = None,
    paths: str = "a",
    policy: Policy = Policy(),  # noqa: B008 -- frozen
    optional: frozenset[str] = frozenset(),
    sandbox: Sandbox | None = None,
) -> VerificationReport:
    verification = Verification(verifiers, policy, planned(*paths), optional=optional, sandbox=sandbox)
    await verification.files(files or [staged()])
    return await verification.conclude()


async def report_of(sandbox: Sandbox, file: StagedFile, verifier: AbstractVerifier) -> VerifierReport:
    report = await run(verifier, files=[file], policy=Policy(limits=Limits(seconds=5)), sandbox=sandbox)
    return report.verifiers[0]


async def test_every_verifier_has_its_report() -> None:
    report = await run(IntegrityVerifier(), Asking())

    assert report.verdict == "clean"
    assert [(each.name, each.status, each.scanned, each.skipped) for each in report.verifiers] == [
        ("integrity", "clean", 1, 0),
        ("asking", "clean", 1, 0),
    ]


async def test_a_file_with_another_digest_is_blocked() -> None:
    report = await run(IntegrityVerifier(), files=[staged(digests=Digests(size=7, sha256="wrong"))])

    assert (report.verdict, report.verifiers[0].infected) == ("blocked", 1)
    assert report.verifiers[0].findings[0].category == "integrity"


async def test_a_file_that_nobody_brought_is_incomplete() -> None:
    report = await run(IntegrityVerifier(), Asking(), paths="ab")

    assert report.verdict == "incomplete"
    assert [(each.status, each.scanned, each.skipped) for each in report.verifiers] == [
        ("incomplete", 1, 1)
    ] * 2


async def test_a_verifier_that_raises_is_an_error_and_never_clean() -> None:
    report = await run(Asking(RuntimeError("secret")))

    assert (report.verdict, report.verifiers[0].status) == ("incomplete", "error")
    assert report.verifiers[0].error == "a: RuntimeError"


async def test_a_verifier_that_hangs_is_an_error() -> None:
    class Waiting(Asking):
        async def examine_file(self, file: StagedFile, policy: Policy) -> FileResult:  # noqa: ARG002
            await asyncio.sleep(600)
            return FileResult()

    report = await run(Waiting(), policy=Policy(limits=Limits(seconds=0.01)))

    assert (report.verdict, report.verifiers[0].error) == ("incomplete", "a: took too long")


async def test_a_file_not_covered_is_incomplete_with_its_reason() -> None:
    report = await run(Asking(FileResult(covered=False, reason="too large")))

    assert (report.verdict, report.verifiers[0].error) == ("incomplete", "a: too large")


async def test_the_gap_of_an_optional_verifier_is_reported() -> None:
    report = await run(IntegrityVerifier(), Asking(RuntimeError()), optional=frozenset({"asking"}))

    assert (report.verdict, report.verifiers[1].status) == ("clean", "error")


async def test_a_file_given_again_counts_with_its_last_bytes() -> None:
    verification = Verification([IntegrityVerifier()], Policy(), planned("a"))
    await verification.files([staged(digests=Digests(size=7, sha256="wrong"))])
    await verification.files([staged()])

    assert (await verification.conclude()).verdict == "clean"


async def test_a_file_outside_the_plan_is_refused() -> None:
    with pytest.raises(KeyError):
        await Verification([], Policy(), planned("a")).files([staged("b")])


async def test_a_report_is_bounded_and_keeps_the_gravest() -> None:
    found = [finding("a", "note") for _ in range(MOST_FINDINGS + 5)] + [finding("a", "block", "\x00\ud800")]
    report = await run(Asking(FileResult(found)))
    kept = report.verifiers[0].findings

    assert (len(kept), kept[0].severity, kept[-1].rule) == (MOST_FINDINGS + 1, "block", "more-findings")
    assert kept[0].message == r"\x00\ud800"
    assert report.verdict == "blocked"


# Worker processes.


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def test_without_a_worker_process_nothing_is_clean(file: StagedFile) -> None:
    assert (await run(Reader(), files=[file])).verdict == "incomplete"


async def test_a_worker_process_gets_the_file_and_what_the_verifier_was_made_with(file: StagedFile) -> None:
    async with Sandbox(1) as sandbox:
        report = await report_of(sandbox, file, Reader("word"))

    assert report.findings[0].message == "word 7 content 4"


async def test_a_worker_process_can_do_nothing_but_read(
    file: StagedFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOWAGE_SECRET_OF_THIS_TEST", "x")
    (tmp_path / "there").touch()
    async with Sandbox(1) as sandbox:
        report = await report_of(sandbox, file, Prober(str(tmp_path)))

    assert (report.status, [each.message for each in report.findings]) == ("clean", [])
    assert names(tmp_path) == ["file", "there"]


@pytest.mark.parametrize(
    ("verifier", "error"),
    [(Dying(), "its worker process died"), (Hanging(), "took too long"), (Greedy(), "MemoryError")],
)
async def test_a_verifier_that_fails_leaves_the_others_their_answers(
    file: StagedFile, verifier: AbstractVerifier, error: str
) -> None:
    async with Sandbox(1) as sandbox:
        report = await run(
            Asking(),
            verifier,
            Reader("after"),
            files=[file],
            policy=Policy(limits=Limits(seconds=5)),
            sandbox=sandbox,
        )

    assert report.verdict == "incomplete"
    assert [(each.status, each.error) for each in report.verifiers] == [
        ("clean", None),
        ("error", f"a: {error}"),
        ("clean", None),
    ]


async def test_a_file_that_cannot_be_opened_is_an_error() -> None:
    async with Sandbox(1) as sandbox:
        report = await report_of(sandbox, staged(), Reader())

    assert report.error == "a: the file could not be opened"


async def test_one_worker_process_serves_many_files(file: StagedFile) -> None:
    paths = "abcdefgh"
    files = [StagedFile(path, file.size, None, file.open) for path in paths]
    async with Sandbox(2) as sandbox:
        report = await run(Reader(), files=files, paths=paths, sandbox=sandbox)

        assert (report.verdict, report.verifiers[0].scanned) == ("clean", 8)
        assert len(sandbox._idle) <= 2


@pytest.mark.parametrize(
    ("does", "error"), [("die", "its worker process died"), ("hang", "took too long"), ("talk", None)]
)
async def test_what_one_file_does_to_its_worker_process_is_its_own_matter(
    tmp_path: Path, does: str, error: str | None
) -> None:
    paths = [f"{number:03}" for number in range(80)]
    files = []
    for path in paths:
        (tmp_path / path).write_text(does if path == "040" else path)
        files.append(StagedFile(path, 3, None, partial(open, tmp_path / path, "rb")))
    verification = Verification(
        [Reader("before"), Obeying(), Reader("after")],
        Policy(limits=Limits(seconds=2)),
        planned(*paths),
        sandbox=(sandbox := Sandbox(1)),
    )
    async with sandbox:
        await verification.files(files)
    before, obeying, after = (await verification.conclude()).verifiers

    for reader, word in ((before, "before"), (after, "after")):
        assert [each.message for each in reader.findings] == [
            f"{word} 3 {does if path == '040' else path} 4" for path in paths
        ]
    assert obeying.error == (error and f"040: {error}")
    assert obeying.scanned == (79 if error else 80)
    assert {each.file for each in obeying.findings} == ({"040"} if does == "talk" else set())


async def test_a_cancel_ends_the_worker_process(file: StagedFile) -> None:
    async with Sandbox(1) as sandbox:
        task = asyncio.create_task(sandbox.examine([Hanging()], [file], Policy()))
        await asyncio.sleep(0.5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        assert not sandbox._idle
        assert (await report_of(sandbox, file, Reader())).status == "clean"
