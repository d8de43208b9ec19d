"""Files as the libraries themselves wrote them: what is ordinary stays clean, or nobody leaves verification on.

Written by torch 2.13.0 (`torch.save` in both of its formats, of state dictionaries, checkpoints, optimizers, random states, quantized and sparse
tensors, views, embeddings; `torch.export.save`), numpy 2.4.6, onnx 1.23.2, h5py 3.16.0, pyarrow and safetensors.
"""

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
