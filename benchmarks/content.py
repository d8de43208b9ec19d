"""The models that are moved: made once from seeds, kept in the cache directory, described as a hub describes them."""

import base64
import hashlib
import json
import random
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

MIB = 1 << 20
_BLOCK = 8 * MIB


@dataclass(frozen=True)
class Wanted:
    """A file to make: text goes into Git itself, everything else into LFS as a safetensors file."""

    path: str
    size: int
    text: bool = False


@dataclass(frozen=True)
class ModelFile:
    """A file as a hub's tree shows it; `sha256` is known of all, `blob_id` is the git blob of it or of its LFS pointer."""

    path: str
    size: int
    sha256: str
    blob_id: str
    lfs: bool


@dataclass(frozen=True)
class Model:
    """A model on disk below `directory`, its `commit` a digest of what it holds."""

    id: str
    commit: str
    files: tuple[ModelFile, ...]
    directory: Path

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


def model_files(name: str, *, slow: bool, quick: bool) -> Sequence[Wanted]:
    """Return what the case of this name moves; `slow` and `quick` have smaller files, never other ones."""
    shrink = 16 if quick else 1
    if name == "large":
        return [Wanted("model.safetensors", (1024 if slow else 4096) * MIB // shrink)]
    if name == "eight":
        size = (128 if slow else 512) * MIB // shrink
        return [Wanted(f"model-{number:05}-of-00008.safetensors", size) for number in range(1, 9)]
    if name == "small":
        count = 2000 // (4 if quick else 1)
        return [Wanted(f"data/part-{number:05}.txt", 65536, text=True) for number in range(count)]
    shards = [
        Wanted(f"model-{number:05}-of-00003.safetensors", size * MIB // shrink)
        for number, size in ((1, 312), (2, 296), (3, 287))
    ]
    return [
        Wanted(".gitattributes", 1519, text=True),
        Wanted("README.md", 14_201, text=True),
        Wanted("config.json", 1_093, text=True),
        Wanted("generation_config.json", 242, text=True),
        Wanted("merges.txt", 1_671_853, text=True),
        Wanted("model.safetensors.index.json", 35_581, text=True),
        *shards,
        Wanted("special_tokens_map.json", 613, text=True),
        Wanted("tokenizer.json", 7_031_645, text=True),
        Wanted("tokenizer_config.json", 7_305, text=True),
        Wanted("vocab.json", 2_776_833, text=True),
    ]


def make_model(cache: Path, case: str, wanted: Sequence[Wanted]) -> Model:
    """Return the model with these files; it is made unless the cache holds it whole."""
    recipe = hashlib.sha256(json.dumps([asdict(each) for each in wanted]).encode()).hexdigest()[:12]
    directory, index = cache / f"{case}-{recipe}", cache / f"{case}-{recipe}.json"
    if index.exists():
        files = tuple(ModelFile(**each) for each in json.loads(index.read_text()))
    else:
        shutil.rmtree(directory, ignore_errors=True)
        files = tuple(_make_file(directory, each) for each in wanted)
        fresh = index.with_suffix(".new")
        fresh.write_text(json.dumps([asdict(each) for each in files]))
        fresh.replace(index)
    commit = hashlib.sha1(repr(files).encode(), usedforsecurity=False).hexdigest()
    return Model(f"bench/{directory.name}", commit, files, directory)


def warm(model: Model) -> None:
    """Read every file once, so that whoever comes first does not read from the disk for the others."""
    for file in model.files:
        with (model.directory / file.path).open("rb", buffering=0) as content:
            while content.read(_BLOCK):
                pass


def _make_file(directory: Path, wanted: Wanted) -> ModelFile:
    path = directory / wanted.path
    path.parent.mkdir(parents=True, exist_ok=True)
    sha256 = hashlib.sha256()
    blob = hashlib.sha1(f"blob {wanted.size}\0".encode(), usedforsecurity=False)
    with path.open("wb") as file:
        for block in _text(wanted) if wanted.text else _safetensors(wanted):
            file.write(block)
            sha256.update(block)
            if wanted.text:
                blob.update(block)
    if not wanted.text:
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256.hexdigest()}\nsize {wanted.size}\n"
        blob = hashlib.sha1(f"blob {len(pointer)}\0{pointer}".encode(), usedforsecurity=False)
    return ModelFile(wanted.path, wanted.size, sha256.hexdigest(), blob.hexdigest(), lfs=not wanted.text)


def _safetensors(wanted: Wanted) -> Iterator[bytes]:
    """Yield one tensor of random bytes behind a true header, which verifiers read."""
    # 8 bytes of length and a header that fills a fixed 1 KiB with spaces, as the format allows.
    length = wanted.size - 8 - 1024
    header = json.dumps({"weight": {"dtype": "U8", "shape": [length], "data_offsets": [0, length]}})
    yield (1024).to_bytes(8, "little") + header.ljust(1024).encode()
    yield from _random(wanted.path, length)


def _text(wanted: Wanted) -> Iterator[bytes]:
    """Yield printable text; a JSON file is one string."""
    if wanted.path.endswith(".json"):
        yield b'"' + _letters(wanted.path, wanted.size - 2) + b'"'
    else:
        yield _letters(wanted.path, wanted.size)


def _letters(seed: str, size: int) -> bytes:
    return base64.b64encode(b"".join(_random(seed, size * 3 // 4 + 3)))[:size]


def _random(seed: str, size: int) -> Iterator[bytes]:
    generator = random.Random(seed)  # noqa: S311 -- the same bytes at every run, and no secret
    while size > 0:
        yield generator.randbytes(min(size, _BLOCK))
        size -= _BLOCK
