import io
import pickle

import pytest

from storage_proxy.verifiers.base import worst_severity
from storage_proxy.verifiers.picklescan import LARGEST, PicklescanVerifier
from storage_proxy.verifiers.policy import AllowPickle, Policy
from tests.verifiers.conformance import examine
from tests.verifiers.samples_pickles import Harm, harmless, stack_global

OTHER = b"\x80\x04" + stack_global("mymodels", "Config") + b")\x81."


def test_what_it_calls_dangerous_is_blocked() -> None:
    (finding,) = examine(PicklescanVerifier(), "model.bin", pickle.dumps(Harm())).findings

    assert (finding.rule, finding.severity) == ("picklescan", "block")


def test_what_it_does_not_know_is_blocked_since_it_is_strict() -> None:
    assert examine(PicklescanVerifier(), "model.bin", OTHER).findings


def test_what_the_policy_allows_is_not_dangerous() -> None:
    policy = Policy(allowed_globals=frozenset({("mymodels", "Config")}))

    assert not examine(PicklescanVerifier(), "model.bin", OTHER, policy).findings


@pytest.mark.parametrize("name", harmless())
def test_it_objects_to_nothing_honest(name: str) -> None:
    result = examine(PicklescanVerifier(), "model.bin", harmless()[name])

    assert worst_severity(result.findings) == "clean"


def test_a_text_that_names_a_module_is_flagged() -> None:
    assert worst_severity(examine(PicklescanVerifier(), "x.txt", b"cos\nsystem\n.").findings) == "flagged"


def test_a_policy_that_lets_all_pickles_in_makes_it_a_note() -> None:
    result = examine(PicklescanVerifier(), "m", pickle.dumps(Harm()), Policy(allow_pickle=AllowPickle.ANY))

    assert [finding.severity for finding in result.findings] == ["note"]


def test_larger_files_are_not_shown_to_it() -> None:
    result = PicklescanVerifier().examine("m", io.BytesIO(), LARGEST + 1, Policy())

    assert (result.covered, result.reason) == (False, "larger than 64 MiB")


def test_its_version_is_reported() -> None:
    assert PicklescanVerifier().version.startswith("1.")


@pytest.mark.parametrize("digit", [b"0", b"1", b"2"])
def test_what_begins_as_no_pickle_is_not_read_to_its_end(digit: bytes) -> None:
    stream = io.BytesIO(digit * (8 << 20))
    result = PicklescanVerifier().examine("a.txt", stream, 8 << 20, Policy())
    assert (list(result.findings), result.covered) == ([], True)
    assert stream.tell() <= 1 << 20


def test_a_pickle_without_a_header_is_read_as_far_as_an_unpickler_does() -> None:
    content = b"(l" + b"I1\na" * 40_000 + b"cos\nsystem\n(S'true'\ntR."
    result = PicklescanVerifier().examine("a.bin", io.BytesIO(content), len(content), Policy())
    assert [finding.severity for finding in result.findings] == ["flag"]
