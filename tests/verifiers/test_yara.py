"""The operator's own YARA rules."""

from pathlib import Path

import pytest

from proxy_client.errors import BadRequest
from storage_proxy.verifiers.base import FileResult, StagedFile
from storage_proxy.verifiers.policy import Policy
from storage_proxy.verifiers.sandbox import Sandbox
from storage_proxy.verifiers.yara import YaraVerifier

pytestmark = pytest.mark.anyio

BLOCKING = 'rule Blocking { meta: description = "says so" strings: $a = "STOWAGE-BLOCK" condition: $a }'
FLAGGING = 'rule Flagging { meta: severity = "flag" strings: $a = "STOWAGE-FLAG" condition: $a }'


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    folder = tmp_path / "rules"
    (folder / "more").mkdir(parents=True)
    (folder / "a.yar").write_text(BLOCKING)
    (folder / "more" / "b.yara").write_text(FLAGGING)
    (folder / "notes.txt").write_text("no rules")
    return folder


def examine(verifier: YaraVerifier, content: bytes, tmp_path: Path) -> FileResult:
    place = tmp_path / "examined"
    place.write_bytes(content)
    with place.open("rb") as stream:
        return verifier.examine("model.bin", stream, len(content), Policy())


def test_rules_of_a_directory_match(rules: Path, tmp_path: Path) -> None:
    verifier = YaraVerifier(str(rules))
    result = examine(verifier, b"x STOWAGE-BLOCK STOWAGE-FLAG", tmp_path)
    assert {(found.rule, found.severity, found.file) for found in result.findings} == {
        ("Blocking", "block", "model.bin"),
        ("Flagging", "flag", "model.bin"),
    }
    assert any("says so" in found.message for found in result.findings)
    assert verifier.version == "2 files of rules"


def test_what_matches_nothing_is_clean(rules: Path, tmp_path: Path) -> None:
    verifier = YaraVerifier(str(rules / "a.yar"))
    assert examine(verifier, b"harmless", tmp_path) == FileResult()
    assert examine(verifier, b"", tmp_path) == FileResult()


def test_a_file_over_the_limit_is_not_covered(rules: Path, tmp_path: Path) -> None:
    verifier = YaraVerifier(str(rules), max_size=10)
    assert examine(verifier, b"x" * 10, tmp_path).covered
    assert not examine(verifier, b"x" * 11, tmp_path).covered


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("rule Broken {", "error"),
        ("rule A { condition: nothing }", "error"),
        ('include "/etc/passwd"', "include"),
    ],
)
def test_rules_that_do_not_compile_are_a_wrong_setting(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "broken.yar").write_text(text)
    with pytest.raises(BadRequest, match=rf"yara: .*{says}.*\(broken\.yar\)") as caught:
        YaraVerifier(str(tmp_path / "broken.yar"))
    assert caught.value.field == "verification.yara-rules"
    assert str(tmp_path) not in caught.value.message


def test_missing_rules_are_a_wrong_setting(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="FileNotFoundError"):
        YaraVerifier(str(tmp_path / "none.yar"))
    with pytest.raises(BadRequest, match=r"no \.yar or \.yara"):
        YaraVerifier(str(tmp_path))


async def test_rules_match_in_a_limited_process(rules: Path) -> None:
    content = b"x STOWAGE-BLOCK" + bytes(1 << 20)
    place = rules / "examined"
    place.write_bytes(content)
    file = StagedFile("model.bin", len(content), None, lambda: place.open("rb"))
    async with Sandbox(1) as sandbox:
        ((answer,),) = await sandbox.examine([YaraVerifier(str(rules))], [file], Policy())
    assert answer.error is None
    assert answer.result is not None
    assert [found.rule for found in answer.result.findings] == ["Blocking"]
