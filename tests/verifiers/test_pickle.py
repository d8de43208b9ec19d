import io
import os
import pickle
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage_proxy.verifiers.base import FileResult, worst_severity
from storage_proxy.verifiers.globals import ALLOWED, is_allowed
from storage_proxy.verifiers.pickle import examine_pickle
from storage_proxy.verifiers.pickle_stream import Budget
from storage_proxy.verifiers.policy import AllowPickle, Limits, Policy
from tests.verifiers.samples_pickles import Harm, harmless, hostile, stack_global, text

POLICY = Policy()


def examine(content: bytes, policy: Policy = POLICY, **given: Any) -> FileResult:
    return examine_pickle(io.BytesIO(content), policy, path="model.bin", **given)


def rules(result: FileResult) -> set[str]:
    return {finding.rule for finding in result.findings}


class Forward(io.RawIOBase):
    """A stream that cannot be gone back in, as of a compressed member."""

    def __init__(self, content: bytes) -> None:
        self._stream = io.BytesIO(content)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._stream.readinto(memoryview(buffer)[:1000])


@pytest.mark.parametrize("name", hostile())
def test_what_reaches_code_is_blocked(name: str) -> None:
    assert worst_severity(examine(hostile()[name]).findings) == "blocked"


@pytest.mark.parametrize("name", hostile())
def test_a_stream_that_cannot_seek_tells_the_same(name: str) -> None:
    content = hostile()[name]
    result = examine_pickle(Forward(content), POLICY, path="model.bin")  # type: ignore[arg-type]

    assert result == examine(content)


@pytest.mark.parametrize("name", harmless())
def test_honest_content_is_clean(name: str) -> None:
    assert examine(harmless()[name]) == FileResult()


@pytest.mark.parametrize("begin", [b"", b"\x80\x04" + stack_global("os", "getpid") + b")R"])
def test_a_length_that_no_file_system_has_ends_the_pickle(begin: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(begin + b"\x96" + struct.pack("<Q", (1 << 63) - 9) + bytes(99))

    with (tmp_path / "file").open("rb") as stream:
        found = examine_pickle(stream, POLICY, path="model.bin")

    assert worst_severity(found.findings) == ("blocked" if begin else "clean")
    assert found.covered is not bool(begin)


@pytest.mark.parametrize("protocol", range(6))
def test_the_finding_names_what_is_called(protocol: int) -> None:
    (finding,) = examine(pickle.dumps(Harm(), protocol)).findings

    assert (finding.file, finding.rule, finding.category) == ("model.bin", "pickle-global", "code")
    assert "calls posix.getpid" in finding.message


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("EXT1", "pickle-extension"),
        ("EXT4", "pickle-extension"),
        ("computed operand", "pickle-computed-global"),
        ("dotted name", "pickle-dotted-name"),
        ("calls a result", "pickle-calls-result"),
        ("BUILD on a global", "pickle-changes-global"),
    ],
)
def test_each_trick_has_a_rule_of_its_own(name: str, rule: str) -> None:
    assert rules(examine(hostile()[name])) == {rule}


def test_weights_that_begin_by_chance_with_a_number_of_the_extension_registry_are_clean() -> None:
    weights = b"\x83%\x9f)\x81&\x1b\xa5" + bytes(range(200))

    assert examine(weights) == FileResult()
    for meant in (b"\x80\x02" + weights, b"\x83%\x9f)\x81.", b"\x83%\x9f)\x81cos\nsystem\n)R\xff"):
        assert worst_severity(examine(meant).findings) == "blocked"


def test_nobody_calls_a_buffer_that_lies_beside_the_pickle() -> None:
    assert examine(b"\x97M\0\0\x81\x18\0\0\xbb") == FileResult()
    assert examine(b"\x80\x05\x97.") == FileResult()


def test_what_comes_behind_a_broken_pickle_is_not_covered() -> None:
    content = harmless()["torch tensor"]
    result = examine(content[:-1])

    assert not result.covered
    assert f"byte {len(content) - 1}" in str(result.reason)


@pytest.mark.parametrize("content", [b"cos\nsystem\n", b"cos\nsystem\nnext\n", b"cat\ndog\n."])
def test_a_text_that_would_import_something_is_flagged(content: bytes) -> None:
    assert worst_severity(examine(content).findings) == "flagged"


def test_a_whole_pickle_of_a_function_is_blocked_without_a_call() -> None:
    assert worst_severity(examine(b"cos\nsystem\n.").findings) == "blocked"


# The policy.


def test_a_policy_may_allow_one_more_global() -> None:
    content = b"\x80\x04" + stack_global("mymodels", "Config") + b")\x81."

    assert rules(examine(content)) == {"pickle-global"}
    assert not examine(content, Policy(allowed_globals=frozenset({("mymodels", "Config")}))).findings
    assert examine(content, Policy(allowed_globals=frozenset({("mymodels", "Other")}))).findings


@pytest.mark.parametrize("name", ["state of protocol 0", "state of protocol 4", "legacy torch"])
def test_never_refuses_every_pickle(name: str) -> None:
    result = examine(harmless()[name], Policy(allow_pickle=AllowPickle.NEVER))

    assert rules(result) == {"pickle-refused"}


@pytest.mark.parametrize("name", ["nothing", "text", "text of c", "JSON", "weights", "zeros"])
def test_never_leaves_other_files_alone(name: str) -> None:
    assert not examine(harmless()[name], Policy(allow_pickle=AllowPickle.NEVER)).findings


def test_any_only_notes_what_a_pickle_names() -> None:
    result = examine(pickle.dumps(Harm()), Policy(allow_pickle=AllowPickle.ANY))

    assert [finding.severity for finding in result.findings] == ["note"]


def test_no_allowed_global_means_another_one_for_old_protocols() -> None:
    assert all(is_allowed(module, name) for module, name in ALLOWED)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("builtins", "eval"),
        ("__builtin__", "getattr"),
        ("torch", "load"),
        ("torch.storage", "_load_from_bytes"),
    ],
)
def test_what_runs_or_loads_is_not_allowed(module: str, name: str) -> None:
    assert not is_allowed(module, name)


# Bounds.


def test_too_many_opcodes_are_not_clean() -> None:
    result = examine(pickle.dumps(list(range(2000))), Policy(limits=Limits(opcodes=1000)))

    assert (result.covered, result.reason) == (False, "a pickle has more opcodes than the limit")


def test_the_budget_is_one_for_all_pickles_of_a_file() -> None:
    budget = Budget.of(Limits(opcodes=1500))
    content = pickle.dumps(list(range(1000)))

    assert [examine(content, budget=budget).covered for _ in range(2)] == [True, False]


def test_pickles_nested_too_deep_are_not_clean() -> None:
    content = pickle.dumps(Harm())
    for _ in range(6):
        content = pickle.dumps([content])

    assert not examine(content).covered
    assert examine(content, Policy(limits=Limits(depth=6))).findings


def test_containers_around_it_count_for_the_depth() -> None:
    content = pickle.dumps([pickle.dumps(Harm())])

    assert examine(content, depth=3).findings
    assert not examine(content, depth=4).covered


def _piled(count: int) -> bytes:
    return b"\x80\x04" + b"N" * count


@pytest.mark.parametrize("content", [_piled((4 << 20) + 1), b"\x80\x04" + b"(" * ((1 << 20) + 1)])
def test_what_piles_up_without_end_is_not_clean(content: bytes) -> None:
    assert not examine(content).covered


def test_more_names_than_can_be_told_apart_hide_nothing() -> None:
    texts = b"".join(text(f"w{number}") + b"0" for number in range(20_001))

    assert not examine(b"\x80\x04" + texts + stack_global("collections", "OrderedDict") + b")R.").findings
    assert examine(b"\x80\x04" + texts + stack_global("os", "getpid") + b")R.").findings


def test_a_value_of_gigabytes_is_jumped_over() -> None:
    with tempfile.TemporaryFile() as file:
        file.write(b"\x80\x04]\x94(\x8e" + struct.pack("<Q", 4 << 30))
        file.seek(4 << 30, os.SEEK_CUR)  # a hole: it takes no room
        file.write(pickle.dumps(Harm(), 0)[:-1] + b"e.")
        file.seek(0)
        result = examine_pickle(file, POLICY, path="model.bin")

    assert rules(result) == {"pickle-global"}


@given(st.binary(max_size=300))
def test_any_bytes_have_a_result(content: bytes) -> None:
    examine(content)


_PARTS = [
    *(
        b"c",
        b"os\ngetpid\n",
        b"(",
        b".",
        b"0",
        b"1",
        b"2",
        b")R",
        b")\x81",
        b"o",
        b"i",
        b"b",
        b"e",
        b"u",
        b"t",
    ),
    *(b"\x80\x04", b"\x8c\x02os", b"\x8c\x06getpid", b"\x93", b"\x94", b"q\x00", b"h\x00", b"N", b"}", b"]"),
    *(b"p0\n", b"g0\n", b"\x95" + bytes(8), b"Q", b"P1\n", b"\x85", b"C\x03abc", b"\x96\x01" + bytes(8)),
]


@given(st.lists(st.sampled_from(_PARTS), max_size=25), st.integers(1, 5))
def test_a_part_of_a_stream_at_a_time_tells_the_same(parts: list[bytes], step: int) -> None:
    content = b"".join(parts)

    class Crumbs(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:  # noqa: ARG002 -- less than asked for
            return super().read(step)

    assert examine_pickle(Crumbs(content), POLICY, path="model.bin") == examine(content)


def test_a_hostile_name_is_shown_escaped_and_cut() -> None:
    content = b"\x80\x02cos\n\x1b[2J" + b"x" * 5000 + b"\n."
    (finding,) = examine(content).findings

    assert "\x1b" not in finding.message
    assert len(finding.message) <= 500


@pytest.mark.parametrize("make", [pickle.dumps, lambda value: pickle.dumps(value, 2)])
def test_many_globals_make_a_short_report(make: Callable[[Any], bytes]) -> None:
    content = make(0)[:-1] + b"".join(b"cos\nf%d\n0" % number for number in range(1000)) + b"."
    result = examine(content)

    assert len(result.findings) <= 100
