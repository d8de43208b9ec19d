from pathlib import Path

import pytest

from proxy_client.errors import BadRequest
from storage_proxy.verifiers.suite import OPTIONAL, REQUIRED, load_suite

MODULE = """
from storage_proxy.verifiers.base import FileResult, SandboxedVerifier

class Letters(SandboxedVerifier):
    name = "letters"
    version = "7"
    def __init__(self, most=10):
        self.arguments = {"most": most}
        self.most = most
    def examine(self, path, stream, size, policy):
        return FileResult(covered=size <= self.most, reason="too long")

class Misnamed(Letters):
    name = "numbers"

no_verifier = dict
"""
ENTRY_POINTS = """
[stowage.verifiers]
letters = brought_verifiers:Letters
misnamed = brought_verifiers:Misnamed
other = brought_verifiers:no_verifier
gone = brought_verifiers:gone
"""


@pytest.fixture
def brought(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package that brings verifiers."""
    (tmp_path / "brought_verifiers.py").write_text(MODULE)
    distribution = tmp_path / "brought_verifiers-1.0.dist-info"
    distribution.mkdir()
    (distribution / "METADATA").write_text("Metadata-Version: 2.1\nName: brought-verifiers\nVersion: 1.0\n")
    (distribution / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(str(tmp_path))


def test_the_default_verifiers_stand_in_their_order() -> None:
    suite = load_suite()

    assert [verifier.name for verifier in suite.verifiers] == [*REQUIRED, *OPTIONAL]
    assert suite.optional == frozenset(OPTIONAL)


@pytest.mark.usefixtures("brought")
def test_another_package_brings_a_verifier() -> None:
    suite = load_suite(["letters"], ["pickle"], {"letters": {"most": 3}})

    assert [verifier.version for verifier in suite.verifiers] == ["7", "1"]


@pytest.mark.usefixtures("brought")
@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("unknown", "known are clamav, gone, integrity, letters"),
        ("misnamed", "calls itself numbers"),
        ("other", "is no verifier"),
        ("gone", "could not be loaded"),
    ],
)
def test_what_is_no_verifier_is_refused(name: str, told: str) -> None:
    with pytest.raises(BadRequest, match=told):
        load_suite([name], [])


def test_a_verifier_is_named_once() -> None:
    with pytest.raises(BadRequest, match="pickle: a verifier is named once"):
        load_suite(["pickle"], ["pickle"])
