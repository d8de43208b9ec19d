"""Makes small files of each format, honest and hostile. Nothing that is made here does harm when it is run."""

import json
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence

SAFE_PICKLE = b"\x80\x02}q\x00X\x01\x00\x00\x00aq\x01K\x01s."
EVIL_PICKLE = b"\x80\x02cposix\nsystem\nX\x04\x00\x00\x00true\x85R."
EICAR = b"X5O!P%@AP[4\\PZX54(P^)7CC)7}$" + b"EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"


# Zip.


class ZipWriter:
    """Writes zips whose every field can be wrong."""

    def __init__(self) -> None:
        self.body = bytearray()
        self.directory = bytearray()
        self.count = 0

    def add(
        self,
        name: bytes,
        data: bytes,
        *,
        method: int = 0,
        flags: int = 0,
        local_name: bytes | None = None,
        local_flags: int | None = None,
        crc: int | None = None,
        size: int | None = None,
        mode: int = 0,
        at: int | None = None,
        descriptor: bool = False,
        extra: bytes = b"",
    ) -> "ZipWriter":
        packed = data
        if method == 8:
            packer = zlib.compressobj(9, zlib.DEFLATED, -15)
            packed = packer.compress(data) + packer.flush()
        crc = zlib.crc32(data) if crc is None else crc
        size = len(data) if size is None else size
        flags |= 8 if descriptor else 0
        local_name = name if local_name is None else local_name
        offset = len(self.body) if at is None else at
        numbers = (0, 0, 0) if descriptor else (crc, len(packed), size)
        if at is None:
            self.body += struct.pack(
                "<4s5H3L2H",
                *(b"PK\3\4", 20, flags if local_flags is None else local_flags, method, 0, 0),
                *(*numbers, len(local_name), len(extra)),
            )
            self.body += local_name + extra + packed
            if descriptor:
                self.body += struct.pack("<4s3L", b"PK\7\x08", crc, len(packed), size)
        self.directory += struct.pack(
            "<4s6H3L5H2L",
            *(b"PK\1\2", 0x0314 if mode else 20, 20, flags, method, 0, 0, crc, len(packed), size),
            *(len(name), 0, 0, 0, 0, mode << 16, offset),
        )
        self.directory += name
        self.count += 1
        return self

    def finish(self, *, comment: bytes = b"", prefix: bytes = b"", count: int | None = None) -> bytes:
        count = self.count if count is None else count
        end = struct.pack(
            "<4s4H2LH",
            *(b"PK\5\6", 0, 0, count, count, len(self.directory), len(self.body), len(comment)),
        )
        return prefix + bytes(self.body) + bytes(self.directory) + end + comment


def zipped(members: Mapping[str, bytes], method: int = 0) -> bytes:
    writer = ZipWriter()
    for name, data in members.items():
        writer.add(name.encode(), data, method=method)
    return writer.finish()


def torch_zip(pickle: bytes = SAFE_PICKLE, pickle_name: str = "archive/data.pkl") -> bytes:
    """As PyTorch writes it: stored, sizes behind the content, which is aligned to 64 bytes by an extra field."""
    writer = ZipWriter()
    for name, data in [
        (pickle_name.encode(), pickle),
        (b"archive/byteorder", b"little"),
        (b"archive/data/0", bytes(range(256)) * 4),
        (b"archive/version", b"3\n"),
        (b"archive/.data/serialization_id", b"0" * 40),
    ]:
        padding = -(len(writer.body) + 34 + len(name)) % 64
        extra = b"FB" + struct.pack("<H", padding) + b"Z" * padding
        writer.add(name, data, descriptor=True, flags=0x800, extra=extra)
    return writer.finish()


# Arrays.


def npy(data: bytes, descr: str = "'<f4'", shape: str = "(2, 2)") -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (63 - (len(header) + 10) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


# Protocol buffers.


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def field(number: int, content: bytes | str | int) -> bytes:
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    data = content.encode() if isinstance(content, str) else content
    return varint(number << 3 | 2) + varint(len(data)) + data


def onnx(locations: Sequence[str] = (), *, nested: bool = False, operation: str = "Add") -> bytes:
    tensors = [
        field(1, 2)
        + field(2, 1)
        + field(8, "w")
        + field(13, field(1, "location") + field(2, location))
        + field(14, 1)
        for location in locations
    ]
    inner = b"".join(field(5, tensor) for tensor in tensors)
    node = field(1, "x") + field(2, "y") + field(4, operation)
    if nested:
        branch = field(1, node) + inner
        node += field(5, field(1, "then_branch") + field(6, branch))
        inner = b""
    raw = field(5, field(1, 4) + field(2, 1) + field(9, b"\0\0\x80?" * 4))
    graph = field(1, node) + field(2, "main") + raw + inner
    return field(1, 8) + field(2, "pytorch") + field(7, graph) + field(8, field(2, 17))


def node_def(operation: str, attribute: bytes = b"") -> bytes:
    attributes = field(5, field(1, "output_stream") + field(2, field(2, attribute))) if attribute else b""
    return field(1, "n") + field(2, operation) + field(3, "x") + attributes


def saved_model(operations: Iterable[str], *, in_function: bool = False, attribute: bytes = b"") -> bytes:
    nodes = [node_def(operation, attribute) for operation in operations]
    if in_function:
        body = field(1, field(1, "f")) + b"".join(field(3, node) for node in nodes)
        graph = field(1, node_def("NoOp")) + field(2, field(1, body))
    else:
        graph = b"".join(field(1, node) for node in nodes)
    meta = field(1, field(4, "serve")) + field(2, graph)
    return field(1, 1) + field(2, meta)


def graph_def(operations: Iterable[str]) -> bytes:
    return b"".join(field(1, node_def(operation)) for operation in operations) + field(4, field(1, 27))


# GGUF.


def gguf_text(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def gguf(
    metadata: Mapping[str, str | int | list[str]] | None = None,
    *,
    tensors: Sequence[tuple[str, Sequence[int], int, int]] = (("w", (4,), 0, 0),),
    data: bytes = bytes(32),
    counts: tuple[int, int] | None = None,
) -> bytes:
    """Tensors are name, shape, type and offset."""
    metadata = {"general.architecture": "llama", "tokens": ["a", "b"]} if metadata is None else metadata
    tensor_count, key_count = counts or (len(tensors), len(metadata))
    out = b"GGUF" + struct.pack("<IQQ", 3, tensor_count, key_count)
    for key, value in metadata.items():
        out += gguf_text(key)
        if isinstance(value, str):
            out += struct.pack("<I", 8) + gguf_text(value)
        elif isinstance(value, int):
            out += struct.pack("<II", 4, value)
        else:
            out += struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(gguf_text, value))
    for name, shape, kind, offset in tensors:
        out += gguf_text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)
    return out + bytes(-len(out) % 32) + data


# Others.


def safetensors() -> bytes:
    header = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(8)


def keras_config(layer: Mapping[str, object]) -> bytes:
    layers = [
        {
            "module": "keras.layers",
            "class_name": "InputLayer",
            "config": {"name": "i"},
            "registered_name": None,
        },
        layer,
    ]
    config = {
        "module": "keras",
        "class_name": "Functional",
        "config": {"name": "m", "layers": layers},
        "registered_name": None,
    }
    return json.dumps(config).encode()


DENSE = {"module": "keras.layers", "class_name": "Dense", "config": {"units": 1}, "registered_name": None}
LAMBDA = {
    "module": "keras.layers",
    "class_name": "Lambda",
    "config": {"function": {"class_name": "__lambda__", "config": {"code": "4wEAAAA="}}},
}


def keras_zip(layer: Mapping[str, object]) -> bytes:
    return zipped(
        {
            "metadata.json": b'{"keras_version": "3.9.0"}',
            "config.json": keras_config(layer),
            "model.weights.h5": hdf5(),
        },
        method=8,
    )


def hdf5(attribute: bytes = b"", *, before: int = 0) -> bytes:
    """The superblock, and an attribute as it lies in a heap. No whole HDF5 file, but where a reader of them looks."""
    body = b"\x89HDF\r\n\x1a\n" + bytes(88) + b"GCOL\1\0\0\0" + bytes(24)
    return bytes([1]) * before + body + attribute + bytes(512)


def tar_header(
    name: str, size: int, kind: bytes = b"0", link: str = "", *, magic: bytes = b"ustar\x0000"
) -> bytes:
    header = bytearray(512)
    header[: len(name)] = name.encode()
    header[100:108] = b"0000644\0"
    header[108:116] = header[116:124] = b"0000000\0"
    header[124:136] = f"{size:011o}".encode() + b"\0"
    header[136:148] = b"00000000000\0"
    header[156:157] = kind
    header[157 : 157 + len(link)] = link.encode()
    header[257 : 257 + len(magic)] = magic
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}".encode() + b"\0 "
    return bytes(header)


def tar(members: Mapping[str, bytes], *, magic: bytes = b"ustar\x0000") -> bytes:
    out = b""
    for name, data in members.items():
        out += tar_header(name, len(data), magic=magic) + data + bytes(-len(data) % 512)
    return out + bytes(1024)


def elf() -> bytes:
    return b"\x7fELF\x02\x01\x01" + bytes(57)


def pe() -> bytes:
    return b"MZ" + bytes(58) + struct.pack("<I", 64) + b"PE\0\0" + bytes(60)
