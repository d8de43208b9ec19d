"""Files as the libraries themselves wrote them: what is ordinary stays clean, or nobody leaves verification on.

Written by torch 2.13.0 (`torch.save` in both of its formats, of state dictionaries, checkpoints, optimizers, random states, quantized and sparse
tensors, views, embeddings; `torch.export.save`), numpy 2.4.6, onnx 1.23.2, h5py 3.16.0, pyarrow and safetensors.
"""

import io
import random
import struct
from pathlib import Path

import pytest

from storage_proxy.verifiers.policy import Policy
from tests.verifiers.test_conformance import VERIFIERS

WITNESSES = sorted((Path(__file__).parent / "witnesses").iterdir())


@pytest.mark.parametrize("witness", WITNESSES, ids=lambda witness: witness.name)
def test_what_libraries_write_is_clean(witness: Path) -> None:
    assert len(WITNESSES) >= 20
    for verifier in VERIFIERS:
        with witness.open("rb") as stream:
            result = verifier.examine(witness.name, stream, witness.stat().st_size, Policy())
        assert [found for found in result.findings if found.severity != "note"] == [], verifier.name
        assert result.covered or verifier.name == "picklescan"


def weights(kind: str, choose: random.Random) -> bytes:
    """Return raw weights, as many models keep them in files called `.bin`."""
    match kind:
        case "bytes":
            return choose.randbytes(1500)
        case "float32":
            return struct.pack("<300f", *(choose.gauss(0, 0.02) for _ in range(300)))
        case "float16":
            return struct.pack("<600e", *(choose.gauss(0, 0.02) for _ in range(600)))
        case "int8":
            return bytes(int(choose.gauss(0, 30)) & 255 for _ in range(800))
        case _:
            return struct.pack("<300i", *(choose.randrange(32000) for _ in range(300)))


@pytest.mark.parametrize("kind", ["bytes", "float32", "float16", "int8", "int32"])
@pytest.mark.parametrize(
    "count", [pytest.param(1500, id="some"), pytest.param(200_000, id="many", marks=pytest.mark.soak)]
)
@pytest.mark.timeout(3000)
def test_raw_weights_are_clean(kind: str, count: int) -> None:
    choose = random.Random(kind)  # noqa: S311 -- the same weights each time
    mistaken: list[tuple[str, bytes]] = []
    for _ in range(count):
        content = weights(kind, choose)
        for verifier in VERIFIERS:
            if verifier.name != "picklescan":
                result = verifier.examine("weights.bin", io.BytesIO(content), len(content), Policy())
                if result.findings or not result.covered:
                    mistaken.append((verifier.name, content[:32]))
    # Any bytes at all also begin, once in a while, as a pickle does that calls what its loader gave it.
    assert len(mistaken) <= (count // 10_000 if kind == "bytes" else 0), mistaken
