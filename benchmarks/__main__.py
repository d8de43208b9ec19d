"""`make bench`: Stowage beside its rivals, in one run."""

import argparse
import asyncio
import json
import shutil
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import manager, report, s3, transfers, verification
from benchmarks.load import RequestFailed
from benchmarks.rivals import RIVALS, RivalFailed
from benchmarks.stack import StackFailed
from benchmarks.verification import VerificationFailed
from proxy_client.errors import StowageError

CASES = (*transfers.CASES, "s3", "verify", "manager")
_DIRECTORY = Path(__file__).parent.parent / ".bench"
_PROGRAMS = {"nginx": "nginx-light", "curl": "curl", "aria2c": "aria2", "openssl": "openssl"}


@dataclass
class Measured:
    """Everything, as far as it came."""

    moved: list[transfers.Result] = field(default_factory=list)
    uploaded: list[s3.Uploaded] = field(default_factory=list)
    verified: verification.Verified | None = None
    asked: dict[str, Any] | None = None


def main() -> int:
    """Measure and print; 0 even where a promise was missed, 1 where something could not be measured."""
    asked = _arguments()
    console = Console()
    if missing := [package for program, package in _PROGRAMS.items() if shutil.which(program) is None]:
        console.print(f"the benchmark needs these packages: apt-get install {' '.join(missing)}")
        return 1
    found = Measured()
    # Whoever ends it early has what was measured until then, and no process of it is left.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        _measure(asked, console, found)
    except (RivalFailed, StackFailed, RequestFailed, VerificationFailed, StowageError) as exc:
        console.print(f"not measured: {exc}", markup=False)
        return 1
    finally:
        if asked.json:
            told = report.document(found.moved, found.uploaded, found.asked, found.verified)
            asked.json.write_text(json.dumps(told, indent=2) + "\n")
    return 0


def _measure(asked: argparse.Namespace, console: Console, found: Measured) -> None:
    cases = asked.case or CASES
    directory = asked.dir.absolute()
    rounds = asked.rounds or (3 if asked.quick else 5)
    contenders = [transfers.STOWAGE, *(asked.rival or RIVALS)]
    if asked.without_stowage:
        contenders.remove(transfers.STOWAGE)

    def say(text: str) -> None:
        console.print(text, style="dim", highlight=False)

    def note(result: transfers.Result) -> None:
        found.moved.append(result)
        report.print_result(console, result, judged=not asked.quick)

    if moved := [case for case in cases if case in transfers.CASES]:
        course = transfers.Course(
            directory=directory,
            contenders=contenders,
            rounds=rounds,
            quick=asked.quick,
            done=note,
            say=say,
            profiles=asked.profile,
        )
        course.run(moved, asked.source or transfers.SOURCES)
    if "s3" in cases:
        found.uploaded = s3.measure(directory, rounds=rounds, quick=asked.quick, say=say)
        report.print_uploaded(console, found.uploaded)
    if "verify" in cases:
        found.verified = verification.measure(directory, rounds=rounds, quick=asked.quick, say=say)
        report.print_verified(console, found.verified, judged=not asked.quick)
    if "manager" in cases:
        shutil.rmtree(directory / "manager", ignore_errors=True)
        (directory / "manager").mkdir(parents=True)
        found.asked = asyncio.run(manager.measure(directory / "manager", quick=asked.quick, say=say))
        report.print_manager(console, found.asked)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--case",
        action="append",
        choices=CASES,
        help="only this; may be repeated",
    )
    parser.add_argument(
        "--source", action="append", choices=transfers.SOURCES, help="only this; may be repeated"
    )
    parser.add_argument("--rival", action="append", choices=list(RIVALS), help="only this; may be repeated")
    parser.add_argument("--without-stowage", action="store_true", help="measure the rivals alone")
    parser.add_argument("--rounds", type=int, help="how often each takes its turn (5; 3 with --quick)")
    parser.add_argument(
        "--quick", action="store_true", help="small files, to try things out: promises are not judged"
    )
    parser.add_argument("--json", type=Path, help="write everything measured to this file")
    parser.add_argument(
        "--profile", type=Path, metavar="DIRECTORY", help="have py-spy look at the worker at every import"
    )
    parser.add_argument(
        "--dir", type=Path, default=_DIRECTORY, help="directory on the disk to measure (.bench); 15 GB"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
