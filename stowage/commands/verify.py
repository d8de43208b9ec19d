"""`stowage verify`: what the verifiers say of files that are here already."""

import asyncio
import os
import stat
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer
from rich.text import Text

from stowage.commands import epilog
from stowage.commands.imports import Json
from stowage.commands.output import (
    console,
    human_duration,
    human_size,
    note,
    plain,
    print_json,
    print_table,
)

if TYPE_CHECKING:
    from proxy_client.wire import VerificationReport, VerifierReport

app = typer.Typer(rich_markup_mode=None)

STATUSES = {"clean": 0, "blocked": 1, "flagged": 2, "incomplete": 3}
_STYLES = {"clean": "bold green", "blocked": "bold red"}
_GRAVEST_FIRST = {"block": 0, "flag": 1, "note": 2}


@app.command(
    epilog=epilog(
        ("stowage verify model/", "every file below a directory"),
        ("stowage verify pytorch_model.bin", "one file"),
        ("stowage verify model/ --json", "the whole report, for programs"),
        notes="""
        Looks at files as an import does, with the verifiers and the policy of an installation that sets nothing.
        Needs no configuration and no stack, and compares with no registry. Symbolic links are followed to files,
        not to directories. docs/verification.md says what is looked for.

        Exit status: 0 clean, 1 blocked, 2 flagged, 3 incomplete: not everything could be looked at. A wrong command
        ends with 2, too, and without a report.
        """,
    )
)
def verify(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A file or a directory.", show_default=False)],
    *,
    as_json: Json = False,
) -> int:
    """Look for what is dangerous in the files of a model."""
    places = _files(path)
    sizes = {name: _size(place) for name, place in places.items()}
    report = asyncio.run(_verify(places, sizes))
    if as_json:
        told = report.model_dump(mode="json")
        print_json({"path": str(path), "files": len(sizes), "bytes": sum(sizes.values()), **told})
    else:
        _print(sizes, report)
    if not places:
        note(f"{path}: there is no file.")
    return STATUSES[report.verdict]


def _files(path: Path) -> dict[str, Path]:
    """Return the places of everything that is no directory, by name: relative to `path`, or the name of the file alone."""
    if not path.is_dir():
        return {path.name: path} if path.is_symlink() or path.exists() else {}
    found = {}
    for folder, _folders, names in os.walk(path):
        for name in names:
            place = Path(folder, name)
            found[str(place.relative_to(path))] = place
    return dict(sorted(found.items()))


def _size(place: Path) -> int:
    try:
        return place.stat().st_size
    except OSError:
        return 0


def _open(place: Path) -> BinaryIO:
    """Open a regular file, without waiting for the writer of what is a FIFO. Raises `OSError`."""
    descriptor = os.open(place, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError("not a regular file")
    return os.fdopen(descriptor, "rb")


async def _verify(places: dict[str, Path], sizes: dict[str, int]) -> "VerificationReport":
    from storage_proxy.storages.base import PlannedFile  # noqa: PLC0415 -- no other command needs the verifiers
    from storage_proxy.verifiers.base import StagedFile  # noqa: PLC0415 -- as above
    from storage_proxy.verifiers.policy import Policy  # noqa: PLC0415 -- as above
    from storage_proxy.verifiers.sandbox import Sandbox  # noqa: PLC0415 -- as above
    from storage_proxy.verifiers.suite import OPTIONAL, REQUIRED, load_suite  # noqa: PLC0415 -- as above
    from storage_proxy.verifiers.verification import Verification  # noqa: PLC0415 -- as above

    suite = load_suite([name for name in REQUIRED if name != "integrity"], OPTIONAL)
    planned = [PlannedFile(path=name, size=size) for name, size in sizes.items()]
    async with Sandbox() as sandbox:
        verification = Verification(
            suite.verifiers, Policy(), planned, optional=suite.optional, sandbox=sandbox
        )

        await verification.files(
            [StagedFile(file.path, file.size, None, partial(_open, places[file.path])) for file in planned]
        )
        return await verification.conclude()


def _print(sizes: dict[str, int], report: "VerificationReport") -> None:
    out = console()
    findings = [finding for verifier in report.verifiers for finding in verifier.findings]
    if findings:
        findings.sort(key=lambda finding: (_GRAVEST_FIRST.get(finding.severity, 0), finding.file))
        print_table(
            ["SEVERITY", "FILE", "RULE", "FINDING"],
            [
                [finding.severity, finding.file, finding.rule, _message(finding.file, finding.message)]
                for finding in findings
            ],
            spare=["RULE"],
        )
        out.print()
    print_table(
        ["VERIFIER", "STATUS", "FILES", "TOOK", ""],
        [
            [
                verifier.name,
                verifier.status,
                verifier.scanned,
                human_duration(verifier.duration),
                _told(verifier),
            ]
            for verifier in report.verifiers
        ],
        right=["FILES", "TOOK"],
    )
    out.print()
    files = f"{len(sizes)} file{'' if len(sizes) == 1 else 's'}, {human_size(sum(sizes.values()))}"
    verdict = (report.verdict, _STYLES.get(report.verdict, "bold yellow"))
    out.print(Text.assemble(verdict, f"  {plain(files)}"))


def _message(file: str, message: str) -> str:
    return message.removeprefix(f"{file}: ")


def _told(verifier: "VerifierReport") -> str:
    gap = f"{verifier.skipped} not looked at" if verifier.skipped else ""
    return ": ".join(filter(None, [gap, verifier.error]))
