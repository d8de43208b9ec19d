"""A small hub's content, made on the spot: the same bytes on every machine. `python -m stowage.samples DIR` writes it."""

import json
import os
import random
import shutil
import struct
import sys
from collections.abc import Iterable, Mapping
from itertools import product
from pathlib import Path
from tempfile import mkdtemp

Tensors = Mapping[str, tuple[int, ...]]

_BERT_WIDTH, _BERT_LAYERS, _BERT_WORDS, _BERT_POSITIONS = 128, 2, 12_288, 512
_GPT_WIDTH, _GPT_LAYERS, _GPT_WORDS, _GPT_POSITIONS = 64, 2, 2048, 256

_LFS_ATTRIBUTES = b"".join(
    b"*.%s filter=lfs diff=lfs merge=lfs -text\n" % suffix for suffix in (b"bin", b"onnx", b"safetensors")
)


def write_samples(directory: Path) -> list[str]:
    """Write the sample models beneath `directory`, in the layout of `stowage hub`; return their ids.

    Each appears whole by one rename. What is there already stays as it is, so repeats and races are harmless.
    """
    models = {
        "sample/many-files": _many_files,
        "sample/tiny-bert": _tiny_bert,
        "sample/tiny-gpt": _tiny_gpt,
    }
    for model_id, files in models.items():
        target = directory / model_id
        if target.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(mkdtemp(prefix=".new-", dir=target.parent))
        try:
            for path, content in files().items():
                (staging / path).parent.mkdir(parents=True, exist_ok=True)
                (staging / path).write_bytes(content)
            staging.chmod(0o755)
            _appear(staging, target)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return list(models)


def safetensors(tensors: Tensors, dtype: str, seed: str) -> bytes:
    """Return a safetensors file of small pseudo-random weights; `dtype` is F32 or F16, shapes are by name.

    The format: https://huggingface.co/docs/safetensors/index#format
    """
    width = {"F32": 4, "F16": 2}[dtype]
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in tensors.items():
        begin, end = end, end + _count(shape) * width
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + _weights(end, dtype, seed)


def _weights(size: int, dtype: str, seed: str) -> bytes:
    # Any sign and mantissa, but one exponent: numbers of 1/64 to 1/32, whatever the random bits are.
    keep, exponent = {"F32": (b"\xff\xff\x7f\x80", b"\0\0\x80\x3c"), "F16": (b"\xff\x83", b"\0\x24")}[dtype]
    bits = int.from_bytes(random.Random(seed).randbytes(size), "little")  # noqa: S311 -- the same everywhere
    repeats = size // len(keep)
    bits &= int.from_bytes(keep * repeats, "little")
    bits |= int.from_bytes(exponent * repeats, "little")
    return bits.to_bytes(size, "little")


def _count(shape: Iterable[int]) -> int:
    count = 1
    for length in shape:
        count *= length
    return count


def _appear(staging: Path, target: Path) -> None:
    try:
        os.rename(staging, target)  # noqa: PTH104 -- Path.rename answers a path nobody wants
    except OSError:
        if not target.is_dir():  # else somebody else was quicker
            raise


def _json(value: object) -> bytes:
    return json.dumps(value, indent=2, ensure_ascii=False).encode() + b"\n"


def _tiny_bert() -> dict[str, bytes]:
    width = _BERT_WIDTH
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = "etaoinshrdlucmfwypvbgkjqxz"
    pieces = [
        prefix + "".join(letter)
        for n in (1, 2, 3)
        for prefix in ("", "##")
        for letter in product(letters, repeat=n)
    ]
    words = [*special, *pieces][:_BERT_WORDS]
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (_BERT_WORDS, width),
        "embeddings.position_embeddings.weight": (_BERT_POSITIONS, width),
        "embeddings.token_type_embeddings.weight": (2, width),
        **_layer_norm("embeddings.LayerNorm", width),
    }
    for layer in range(_BERT_LAYERS):
        at = f"encoder.layer.{layer}"
        for name in ("query", "key", "value"):
            shapes |= _linear(f"{at}.attention.self.{name}", width, width)
        shapes |= _linear(f"{at}.attention.output.dense", width, width)
        shapes |= _layer_norm(f"{at}.attention.output.LayerNorm", width)
        shapes |= _linear(f"{at}.intermediate.dense", 4 * width, width)
        shapes |= _linear(f"{at}.output.dense", width, 4 * width)
        shapes |= _layer_norm(f"{at}.output.LayerNorm", width)
    shapes |= _linear("pooler.dense", width, width)
    config = {
        "architectures": ["BertModel"],
        "attention_probs_dropout_prob": 0.1,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "hidden_size": width,
        "initializer_range": 0.02,
        "intermediate_size": 4 * width,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": _BERT_POSITIONS,
        "model_type": "bert",
        "num_attention_heads": 2,
        "num_hidden_layers": _BERT_LAYERS,
        "pad_token_id": 0,
        "torch_dtype": "float32",
        "type_vocab_size": 2,
        "vocab_size": _BERT_WORDS,
    }
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": at,
                "content": word,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for at, word in enumerate(special)
        ],
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": None,
            "lowercase": True,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": None,
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": {word: at for at, word in enumerate(words)},
        },
    }
    return {
        ".gitattributes": _LFS_ATTRIBUTES,
        ".hub.json": _json(
            {
                "downloads": 1200,
                "likes": 34,
                "labels": ["bert", "feature-extraction", "safetensors"],
                "description": "A BERT of two layers with random weights.",
            }
        ),
        "README.md": _readme("tiny-bert", "A BERT of two layers, 128 wide.", "feature-extraction"),
        "config.json": _json(config),
        "model.safetensors": safetensors(shapes, "F32", "sample/tiny-bert"),
        "special_tokens_map.json": _json(
            {
                "unk_token": "[UNK]",
                "sep_token": "[SEP]",
                "pad_token": "[PAD]",
                "cls_token": "[CLS]",
                "mask_token": "[MASK]",
            }
        ),
        "tokenizer.json": _json(tokenizer),
        "tokenizer_config.json": _json(
            {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": _BERT_POSITIONS}
        ),
        "vocab.txt": "".join(f"{word}\n" for word in words).encode(),
        "onnx/config.json": _json(config),
        "onnx/quantize_config.json": _json({"per_channel": False, "reduce_range": False}),
        "onnx/special_tokens_map.json": _json({"unk_token": "[UNK]", "pad_token": "[PAD]"}),
        "onnx/LICENSE": b"Random numbers; do with them what you like.\n",
    }


def _tiny_gpt() -> dict[str, bytes]:
    width = _GPT_WIDTH
    shapes: dict[str, tuple[int, ...]] = {
        "wte.weight": (_GPT_WORDS, width),
        "wpe.weight": (_GPT_POSITIONS, width),
    }
    for layer in range(_GPT_LAYERS):
        at = f"h.{layer}"
        shapes |= _layer_norm(f"{at}.ln_1", width) | _layer_norm(f"{at}.ln_2", width)
        shapes |= _linear(f"{at}.attn.c_attn", width, 3 * width) | _linear(f"{at}.attn.c_proj", width, width)
        shapes |= _linear(f"{at}.mlp.c_fc", width, 4 * width) | _linear(f"{at}.mlp.c_proj", 4 * width, width)
    shapes |= _layer_norm("ln_f", width)
    readme = _readme(
        "tiny-gpt", "A GPT-2 of two layers, 64 wide; branch fp16 holds half precision.", "text-generation"
    )
    files = {
        ".hub.json": _json(
            {
                "tags": {"v1.0": "."},
                "downloads": 870,
                "likes": 21,
                "labels": ["gpt2", "safetensors", "text-generation"],
                "description": "A GPT-2 of two layers with random weights.",
            }
        ),
    }
    for folder, dtype, name in (("", "F32", "float32"), ("@fp16/", "F16", "float16")):
        config = {
            "architectures": ["GPT2Model"],
            "bos_token_id": 0,
            "eos_token_id": 0,
            "model_type": "gpt2",
            "n_ctx": _GPT_POSITIONS,
            "n_embd": width,
            "n_head": 2,
            "n_layer": _GPT_LAYERS,
            "n_positions": _GPT_POSITIONS,
            "torch_dtype": name,
            "vocab_size": _GPT_WORDS,
        }
        files |= {
            f"{folder}.gitattributes": _LFS_ATTRIBUTES,
            f"{folder}README.md": readme,
            f"{folder}config.json": _json(config),
            f"{folder}generation_config.json": _json(
                {"bos_token_id": 0, "eos_token_id": 0, "max_length": 50}
            ),
            f"{folder}model.safetensors": safetensors(shapes, dtype, "sample/tiny-gpt"),
        }
    return files


def _many_files() -> dict[str, bytes]:
    files = {
        ".hub.json": _json({"downloads": 5, "labels": ["many-files"], "description": "200 small files."}),
        "README.md": _readme("many-files", "Two hundred small files.", "other"),
    }
    for at in range(199):
        content = random.Random(f"sample/many-files/{at}").randbytes(at * 7 % 4096)  # noqa: S311 -- no secret
        files[f"shards/{at % 10:02}/part-{at:05}.bin"] = content
    return files


def _linear(name: str, rows: int, columns: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.bias": (rows,), f"{name}.weight": (rows, columns)}


def _layer_norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.bias": (width,), f"{name}.weight": (width,)}


def _readme(name: str, what: str, task: str) -> bytes:
    return (
        f"---\nlicense: cc0-1.0\npipeline_tag: {task}\ntags:\n- sample\n---\n\n# {name}\n\n{what}\n\n"
        "The weights are random numbers: the files are real, the answers are nonsense. It is there to be imported.\n"
    ).encode()


if __name__ == "__main__":
    write_samples(Path(sys.argv[1]))
