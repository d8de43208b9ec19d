from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage_proxy.verifiers.base import FileResult, SandboxedVerifier
from storage_proxy.verifiers.suite import OPTIONAL, REQUIRED, load_suite
from tests.verifiers.conformance import HONEST, check_descriptors, examine
from tests.verifiers.samples_pickles import harmless, hostile

VERIFIERS = [
    verifier
    for verifier in load_suite(REQUIRED, OPTIONAL).verifiers
    if isinstance(verifier, SandboxedVerifier)
]
each = pytest.mark.parametrize("verifier", VERIFIERS, ids=lambda verifier: verifier.name)
SAMPLES = [content for content in [*hostile().values(), *harmless().values()] if 0 < len(content) < 5000]


@each
@pytest.mark.parametrize("path", HONEST)
def test_honest_files_are_clean_and_covered(verifier: SandboxedVerifier, path: str) -> None:
    result = examine(verifier, path, HONEST[path])

    assert (list(result.findings), result.covered) == ([], True)


@each
@given(
    path=st.sampled_from(["a", "a.safetensors", "a.json", "a.npy", "a.zip"]), content=st.binary(max_size=200)
)
def test_any_bytes_have_a_result(verifier: SandboxedVerifier, path: str, content: bytes) -> None:
    try:
        examine(verifier, path, content)
    except Exception:  # noqa: BLE001 -- what its worker process would answer as an error
        assert verifier.name == "picklescan"  # which is not ours


@each
@given(
    content=st.sampled_from(SAMPLES),
    at=st.floats(0, 1, exclude_max=True),
    change=st.sampled_from(["cut", "flip", "insert"]),
)
def test_damaged_pickles_have_a_result(
    verifier: SandboxedVerifier, content: bytes, at: float, change: str
) -> None:
    place = int(at * len(content))
    damaged = {
        "cut": content[:place],
        "flip": content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :],
        "insert": content[:place] + b"." + content[place:],
    }[change]
    try:
        examine(verifier, "model.bin", damaged)
    except Exception:  # noqa: BLE001 -- as above
        assert verifier.name == "picklescan"


@each
def test_an_answer_does_not_depend_on_what_was_examined_before(verifier: SandboxedVerifier) -> None:
    alone: list[FileResult] = [examine(verifier, "model.bin", content) for content in SAMPLES[:5]]

    assert [examine(verifier, "model.bin", content) for content in SAMPLES[:5]] == alone


@each
def test_no_file_is_left_open(verifier: SandboxedVerifier, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(SAMPLES[0])
    with (tmp_path / "file").open("rb") as stream:
        check_descriptors(verifier, stream, len(SAMPLES[0]))
