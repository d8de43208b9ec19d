"""Whatever CPython looks up, the machine has seen: over all truncations of the samples, bit flips and splices."""

import base64
import io
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from storage_proxy.verifiers.base import worst_severity
from storage_proxy.verifiers.globals import is_allowed
from storage_proxy.verifiers.opcodes import Machine
from storage_proxy.verifiers.pickle import examine_pickle
from storage_proxy.verifiers.pickle_stream import Budget, Pickle, Source
from storage_proxy.verifiers.policy import Limits, Policy
from tests.verifiers.samples_pickles import harmless, hostile

_LARGEST = 2000
_OPCODES = bytes(range(256))
_PIECES = [
    *[b"cos\ngetpid\n", b"ccollections\nOrderedDict\n", b"\x8c\x02os", b"\x8c\x06getpid", b"\x93"] * 3,
    *[b")R", b")\x81", b")}\x92", b"o", b"(ios\ngetpid\n", b"}b", b"N", b"K\x01", b"("] * 2,
    *(b"0", b"1", b"2", b"a", b"b", b"e", b"s", b"u", b"\x90", b"t", b"l", b"d", b"\x91", b"]", b"}", b")"),
    *(
        b"\x85",
        b"\x86",
        b"\x87",
        b"\x94",
        b"q\x00",
        b"q\x01",
        b"p2\n",
        b"r\x03\x00\x00\x00",
        b"h\x00",
        b"h\x01",
    ),
    *(
        b"g2\n",
        b"j\x03\x00\x00\x00",
        b"Q",
        b"P1\n",
        b"\x97",
        b"\x98",
        b"\x82\x01",
        b"S'os'\n",
        b"Vos\n",
        b"U\x02os",
    ),
    *(
        b"X\x02\x00\x00\x00os",
        b"C\x01a",
        b"B\x01\x00\x00\x00a",
        b"\x8a\x01a",
        b"\x8b\x01\x00\x00\x00a",
        b"I1\n",
    ),
    *(
        b"L1L\n",
        b"F1\n",
        b"G" + bytes(8),
        b"J" + bytes(4),
        b"M" + bytes(2),
        b"\x88",
        b"\x89",
        b"\x8f",
        b"\x80\x03",
    ),
    *(
        b"\x95\x04" + bytes(7),
        b"\x96\x01" + bytes(7) + b"a",
        b"\x8d\x02" + bytes(7) + b"os",
        b"T\x02\x00\x00\x00os",
    ),
]


def small_samples() -> list[bytes]:
    found = [content for content in [*hostile().values(), *harmless().values()] if len(content) <= _LARGEST]
    return [content for content in found if content]


@dataclass
class Told:
    """What CPython did with a content: looked up, called, called what a call had returned."""

    content: bytes
    found: set[tuple[str, str]]
    called: bool
    called_result: bool


def unpickled(contents: list[bytes]) -> Iterator[Told]:
    """Yield what CPython did with each content.

    A content that ends CPython itself (it is the stranger's memory limit) is left out.
    """
    waiting = contents
    while waiting:
        script = Path(__file__).with_name("unpickling.py")
        asked = json.dumps([base64.b64encode(content).decode() for content in waiting])
        done = subprocess.run(
            [sys.executable, "-W", "ignore", script], input=asked, capture_output=True, text=True, check=False
        )
        answers = done.stdout.splitlines()
        for content, answer in zip(waiting, answers, strict=False):
            told = json.loads(answer)
            yield Told(
                content,
                {(module, name) for found, *_ in told for module, name in found},
                any(called for _, called, _ in told),
                any(called for *_, called in told),
            )
        waiting = waiting[len(answers) + 1 :]


def seen(content: bytes) -> set[tuple[str, str]]:
    pickles: list[Pickle] = []
    Machine(Source(io.BytesIO(content)), Budget.of(Limits()), pickles.append, frozenset()).run()
    return {pair for pickle in pickles for pair in pickle.globals}


def check(contents: list[bytes]) -> int:
    """Compare, and return how many of the contents made CPython call what it should not."""
    count = 0
    for told in unpickled(contents):
        result = examine_pickle(io.BytesIO(told.content), Policy(), path="model.bin")
        verdict = worst_severity(result.findings)
        # What cannot be read off, or is read in several ways, is refused as a whole.
        unclear = {"pickle-frame", "pickle-computed-global"} & {found.rule for found in result.findings}
        assert told.found <= seen(told.content) or (verdict == "blocked" and unclear), told
        harmful = told.called and not all(is_allowed(*pair) for pair in told.found)
        if harmful or told.called_result:
            count += 1
            assert verdict == "blocked", told
    return count


def mutated(rng: random.Random, samples: list[bytes]) -> bytes:
    content = bytearray(rng.choice(samples))
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(content) + 1)
        match rng.randrange(5):
            case 0 if at < len(content):
                content[at] ^= 1 << rng.randrange(8)
            case 1:
                content[at:at] = bytes([rng.choice(_OPCODES)])
            case 2:
                del content[at : at + rng.randint(1, 4)]
            case 3:
                other = rng.choice(samples)
                content[at:] = other[rng.randrange(len(other)) :]
            case _:
                other = rng.choice(samples)
                start = rng.randrange(len(other))
                content[at:at] = other[start : start + rng.randint(1, 30)]
    return bytes(content[: 2 * _LARGEST])


def program(rng: random.Random) -> bytes:
    """Return opcodes that keep to the grammar of pickles as far as they like."""
    head = rng.choice([b"", b"\x80\x02", b"\x80\x04"])
    return head + b"".join(rng.choice(_PIECES) for _ in range(rng.randint(3, 30))) + rng.choice([b".", b""])


def test_the_samples_are_what_they_seem() -> None:
    reached = {told.content for told in unpickled(list(hostile().values())) if told.found}
    others = {name for name, content in hostile().items() if content not in reached}

    # These reach code through a registry, in a later pickle, in one that somebody else unpickles, or by calling an id.
    assert {name for name in others if not name.startswith(("EXT", "nested", "persistent", "long"))} == {
        "second pickle",
        "fifth pickle",
    }


def test_every_truncation_of_the_samples() -> None:
    samples = [content for content in small_samples() if len(content) < 200]
    contents = {content[:length] for content in samples for length in range(1, len(content) + 1)}

    assert check(sorted(contents)) > len(samples)


def test_mutations_of_the_samples() -> None:
    rng = random.Random(1)  # noqa: S311 -- the same mutations each time
    samples = small_samples()

    assert check([mutated(rng, samples) for _ in range(10_000)]) > 600  # that still call something


def test_random_programs() -> None:
    rng = random.Random(2)  # noqa: S311 -- the same programs each time

    assert check([program(rng) for _ in range(20_000)]) > 1000  # that call something


@pytest.mark.soak
def test_many_mutations_of_the_samples() -> None:
    rng = random.Random()  # noqa: S311 -- other mutations each time
    samples = small_samples()
    for _ in range(300):
        contents = [mutated(rng, samples) for _ in range(4000)]
        check(contents)
        check([program(rng) for _ in range(4000)])
        samples += rng.sample([content for content in contents if content], 10)
