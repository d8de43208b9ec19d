"""Every verifier over real files that are cut, flipped and spliced: nothing escapes, within bounded time and memory."""

import os
import random
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from storage_proxy.verifiers.base import FileResult, SandboxedVerifier
from storage_proxy.verifiers.policy import Policy
from tests.verifiers import samples_formats as make
from tests.verifiers.conformance import check_result
from tests.verifiers.samples_pickles import harmless, hostile
from tests.verifiers.test_conformance import VERIFIERS
from tests.verifiers.test_structure_fuzz import BLOCKED, PACKED

each = pytest.mark.parametrize("verifier", VERIFIERS, ids=lambda verifier: verifier.name)
SAMPLES: list[tuple[str, bytes]] = [
    *(("model.bin", content) for content in [*hostile().values(), *harmless().values()] if content),
    *((path, content) for path, content, _danger in BLOCKED),
    *PACKED,
    ("model.safetensors", make.safetensors()),
]
SMALL = [(path, content) for path, content in SAMPLES if len(content) <= 2000]
ROUNDS = [pytest.param(400, id="some"), pytest.param(100_000, id="many", marks=pytest.mark.soak)]
MOST_SECONDS, MOST_KILOBYTES = 20.0, 600 << 10
# Lengths that a file system or a signed number has not.
LENGTHS = [
    value.to_bytes(8, "little") for value in (1 << 31, (1 << 32) - 1, 1 << 62, (1 << 63) - 1, (1 << 64) - 1)
]


@pytest.fixture
def examine(tmp_path: Path) -> Callable[[SandboxedVerifier, str, bytes], FileResult]:
    """Examines content as a real file, which refuses what bytes in memory put up with."""

    def run(verifier: SandboxedVerifier, path: str, content: bytes) -> FileResult:
        (tmp_path / "file").write_bytes(content)
        began = time.monotonic()
        with (tmp_path / "file").open("rb") as stream:
            result = verifier.examine(path, stream, len(content), Policy())
        assert time.monotonic() - began < MOST_SECONDS
        check_result(path, result)
        return result

    return run


def mutants(seed: int, rounds: int) -> Iterator[tuple[str, bytes]]:
    choose = random.Random(seed)  # noqa: S311 -- the same choices each time
    for _ in range(rounds):
        path, content = choose.choice(SMALL)
        changed = bytearray(content)
        for _ in range(choose.randrange(1, 4)):
            at = choose.randrange(len(changed) + 1)
            match choose.randrange(6):
                case 0:
                    del changed[at:]
                case 1 if changed:
                    changed[at % len(changed)] ^= 1 << choose.randrange(8)
                case 2:
                    changed[at : at + 8] = choose.choice(LENGTHS)
                case 3:
                    other = choose.choice(SMALL)[1]
                    changed[at:] = other[choose.randrange(len(other)) :]
                case 4:
                    changed[at:at] = choose.randbytes(choose.randrange(1, 9))
                case _:
                    del changed[at : at + choose.randrange(1, 9)]
        yield path, bytes(changed)


@each
@pytest.mark.parametrize("rounds", ROUNDS)
@pytest.mark.timeout(3000)
def test_what_is_damaged_has_a_result(
    verifier: SandboxedVerifier, rounds: int, examine: Callable[[SandboxedVerifier, str, bytes], FileResult]
) -> None:
    seed = 7 if rounds == 400 else int.from_bytes(os.urandom(4))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for path, content in mutants(seed, rounds):
        try:
            examine(verifier, path, content)
        except MemoryError:
            assert verifier.name == "picklescan"  # its worker process answers for that
        except Exception as exc:
            raise AssertionError(f"seed {seed}: {path} {content.hex()}") from exc
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MOST_KILOBYTES


@each
def test_what_is_cut_anywhere_has_a_result(
    verifier: SandboxedVerifier, examine: Callable[[SandboxedVerifier, str, bytes], FileResult]
) -> None:
    for path, content in SMALL:
        if len(content) <= 120:
            for cut in range(len(content)):
                examine(verifier, path, content[:cut])
