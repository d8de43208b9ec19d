"""Which globals a pickle may name: exact pairs of module and name, for none of which calling it with data does harm.

Weights, arrays and the containers around them. The list follows what PyTorch's own weights-only loader accepts
(torch/_weights_only_unpickler.py) and what numpy needs for its arrays. Nothing here imports, opens, compiles or loads, takes
another pickle apart, or looks an attribute up by name.
"""

from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Set as AbstractSet

from storage_proxy.verifiers.policy import Global

_BUILTIN_TYPES = [
    *("bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset"),
    *("int", "list", "range", "set", "slice", "str", "tuple"),
]
_TORCH_DTYPES = [
    *("float64", "float32", "float16", "bfloat16", "double", "float", "half"),
    *("complex32", "complex64", "complex128"),
    *("int8", "int16", "int32", "int64", "short", "int", "long"),
    *("uint8", "uint16", "uint32", "uint64", "bool"),
    *("qint8", "quint8", "qint32", "quint4x2", "quint2x4"),
    *("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu"),
    *("per_tensor_affine", "per_tensor_symmetric", "per_channel_affine", "per_channel_symmetric"),
    "per_channel_affine_float_qparams",
]
_TORCH_STORAGES = [
    f"{kind}Storage"
    for kind in (
        *("Double", "Float", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool"),
        *("ComplexDouble", "ComplexFloat", "QInt8", "QUInt8", "QInt32", "QUInt4x2", "QUInt2x4"),
        *("Untyped", "Typed"),
    )
]
_TORCH_REBUILDS = [
    *("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3"),
    *("_rebuild_parameter", "_rebuild_parameter_with_state", "_rebuild_qtensor"),
    *("_rebuild_sparse_tensor", "_rebuild_sparse_csr_tensor", "_rebuild_nested_tensor"),
    *("_rebuild_meta_tensor_no_storage", "_rebuild_device_tensor_from_numpy"),
    "_rebuild_device_tensor_from_cpu_tensor",
]

ALLOWED: frozenset[Global] = frozenset(
    [
        *((module, name) for module in ("builtins", "__builtin__") for name in _BUILTIN_TYPES),
        *(("collections", name) for name in ("OrderedDict", "Counter", "defaultdict", "deque")),
        (
            "_codecs",
            "encode",
        ),  # how protocols 0 to 2 write bytes; a codec's name chooses among those of `encodings`
        *(("torch", name) for name in [*_TORCH_DTYPES, *_TORCH_STORAGES, "Size", "Tensor", "device"]),
        *(("torch.cuda", name) for name in _TORCH_STORAGES),
        *(("torch.storage", name) for name in ("TypedStorage", "UntypedStorage")),
        *(("torch._utils", name) for name in _TORCH_REBUILDS),
        ("torch._tensor", "_rebuild_from_type_v2"),
        ("torch.nn.parameter", "Parameter"),
        ("torch.nn.parameter", "Buffer"),
        ("torch.serialization", "_get_layout"),
        *(("numpy", name) for name in ("ndarray", "dtype")),
        *(
            (f"numpy.{core}.multiarray", name)
            for core in ("core", "_core")
            for name in ("_reconstruct", "scalar")
        ),
        *((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),
    ]
)


def is_allowed(module: str, name: str, more: AbstractSet[Global] = frozenset()) -> bool:
    """Whether a pickle may name this global, in Python 3's spelling and in the one that old protocols translate.

    `pickle` reads protocols 0 to 2 with `fix_imports`: `__builtin__` becomes `builtins`. Both readings have to be allowed.
    """
    written = (module, name)
    meant = NAME_MAPPING.get(written) or (IMPORT_MAPPING.get(module, module), name)
    return all(reading in ALLOWED or reading in more for reading in (written, meant))
