import json
import struct
from pathlib import Path

import pytest

from stowage.samples import write_samples
from tests.faults.models import digest_tree


def test_the_samples_are_the_same_everywhere_and_written_once(tmp_path: Path) -> None:
    ids = write_samples(tmp_path / "one")
    write_samples(tmp_path / "two")
    assert ids == ["sample/many-files", "sample/tiny-bert", "sample/tiny-gpt"]
    assert digest_tree(tmp_path / "one") == digest_tree(tmp_path / "two")
    config = tmp_path / "one/sample/tiny-bert/config.json"
    config.write_text("mine")
    assert write_samples(tmp_path / "one") == ids
    assert config.read_text() == "mine"
    assert sorted(path.name for path in (tmp_path / "one/sample").iterdir()) == [
        model_id.partition("/")[2] for model_id in ids
    ]


@pytest.mark.parametrize("model", ["tiny-bert", "tiny-gpt", "tiny-gpt/@fp16"])
def test_the_weights_are_valid_safetensors(tmp_path: Path, model: str) -> None:
    write_samples(tmp_path)
    data = (tmp_path / "sample" / model / "model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    assert header.pop("__metadata__") == {"format": "pt"}
    end = 0
    for tensor in header.values():
        begin, stop = tensor["data_offsets"]
        count = 1
        for size in tensor["shape"]:
            count *= size
        assert (begin, stop - begin) == (end, count * {"F32": 4, "F16": 2}[tensor["dtype"]])
        end = stop
    assert end == len(data) - 8 - length
    assert length % 8 == 0
