"""Pickles by class, harmless when they are run: the worst that one does is to ask for the process's number."""

import collections
import os
import pickle
import struct

HARM = ("os", "getpid")
_GLOBAL = b"cos\ngetpid\n"
_CALL = _GLOBAL + b")R"


class Harm:
    """Calls `os.getpid` when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[()]]:
        return os.getpid, ()


def text(value: str) -> bytes:
    """A short text of protocol 4."""
    return b"\x8c" + bytes([len(value)]) + value.encode()


def stack_global(module: str, name: str) -> bytes:
    return text(module) + text(name) + b"\x93"


def frame(size: int) -> bytes:
    return b"\x80\x04\x95" + struct.pack("<Q", size)


def hostile() -> dict[str, bytes]:
    """Return pickles that reach code, by what they do; unpickling each resolves something that no allow-list has."""
    called = stack_global("os", "getpid") + b")R."
    found = {f"protocol {number}": pickle.dumps(Harm(), number) for number in range(6)}
    found |= {
        "GLOBAL without header": _CALL + b".",
        "GLOBAL, never called": b"\x80\x02" + _GLOBAL + b".",
        "INST": b"(ios\ngetpid\n.",
        "OBJ": b"(" + _GLOBAL + b"o.",
        "NEWOBJ": b"\x80\x02" + _GLOBAL + b")\x81.",
        "NEWOBJ_EX": b"\x80\x04" + _GLOBAL + b")}\x92.",
        "BUILD on a global": b"\x80\x02ccollections\nOrderedDict\n}b.",
        "state that calls": b"\x80\x02ccollections\nOrderedDict\n)R}" + _CALL + b"b.",
        "STACK_GLOBAL": b"\x80\x04" + stack_global("os", "getpid") + b")R.",
        "dotted name": b"\x80\x04" + stack_global("collections", "OrderedDict.fromkeys") + b")R.",
        "dotted path to code": b"\x80\x04" + stack_global("torch", "os.system") + b")R.",
        "computed operand": b"\x80\x04ccollections\nOrderedDict\n)R" + text("system") + b"\x93.",
        "long operand": b"\x80\x04X" + struct.pack("<I", 300) + b"a" * 300 + text("x") + b"\x93.",
        "EXT1": b"\x80\x02\x82\x07)R.",
        "EXT2": b"\x80\x02\x83\x07\x01)R.",
        "EXT4": b"\x80\x02\x84\x07\x01\x00\x00)R.",
        "PUT after POP": b"\x80\x04"
        + text("collections")
        + text("os")
        + b"\x940"
        + text("getpid")
        + b"\x940"
        + b"0h\x00h\x01\x93)R.",
        "DUP": b"\x80\x02" + _GLOBAL + b"20)R.",
        "decoy in the memo": b"\x80\x04"
        + text("collections")
        + b"q\x000"
        + text("os")
        + b"q\x000h\x00"
        + text("getpid")
        + b"\x93)R.",
        "sparse memo": b"\x80\x04"
        + text("os")
        + b"r\x00\x00\x10\x00"
        + b"r\x00\x00\x10\x00\x94"
        + text("getpid")
        + b"0j\x01\x00\x00\x00"
        + text("getpid")
        + b"\x93)R.",
        "mark tricks": b"\x80\x02(" + _GLOBAL + b"(1(0)R.",
        "INST behind a mark": b"\x80\x02]((lp0\n0(ios\ngetpid\n.",
        "no STOP": b"\x80\x02" + _CALL,
        "breaks off behind it": b"\x80\x02" + _CALL + b"\xff garbage",
        "missing memo behind it": b"\x80\x02" + _CALL + b"h\x63.",
        "GLOBAL at the very end": b"\x80\x02cos\ngetpidX",
        "second pickle": pickle.dumps([1, 2]) + pickle.dumps(Harm()),
        "fifth pickle": pickle.dumps(1) * 4 + pickle.dumps(Harm(), 2),
        "nested bytes": pickle.dumps({"state": pickle.dumps(Harm())}),
        "nested bytes of protocol 2": pickle.dumps({"state": pickle.dumps(Harm())}, 2),
        "nested text": pickle.dumps({"state": pickle.dumps(Harm(), 0).decode()}),
        "nested twice": pickle.dumps([pickle.dumps([pickle.dumps(Harm())])]),
        "nested and large": pickle.dumps([pickle.dumps([Harm(), bytes(3 << 20)])]),
        "escaped operands": b"\x80\x02V\\u006fs\nVgetpid\n\x93)R.",
        "old name": b"\x80\x02c__builtin__\neval\n(U\x011tR.",
        "translated name": b"\x80\x02ccopy_reg\n_reconstructor\n(tR.",
        "unusual whitespace in GET": b"\x80\x02" + _GLOBAL + b"p 1 \n0g+1\n)R.",
        "NUL in a module's name": b"(ios\x00x\ngetpid\n.",
        "NUL in GET": b"\x80\x02" + _GLOBAL + b"p7\x00x\n0g7\n)R.",
        "frame too long": frame(255) + stack_global("os", "getpid") + b")R.",
        "frame too short": frame(1) + stack_global("os", "getpid") + b")R.",
        "frame that cuts a number": b"\x80\x04"
        + text("os")
        + b"q\x03"
        + frame(2)[2:]
        + b"j\x01"
        + b"\x03\x00\x00\x00"
        + text("getpid")
        + b"\x93)R.",
        "frame that cuts a line": frame(7) + text("os") + b"\x94g1" + b"0\n" + text("getpid") + b"\x93)R.",
        "frame within a frame": frame(12) + frame(len(called))[2:] + b"NNN" + called,
        "calls a result": b"\x80\x02ccollections\nOrderedDict\n)R)R.",
        "persistent id as callable": b"\x80\x02X\x01\x00\x00\x00aQ)R.",
        "in an argument": pickle.dumps(collections.OrderedDict(a=[{"b": (Harm(),)}]), 4),
        "a million numbers before it": pickle.dumps([list(range(100_000)), Harm()]),
    }
    return found


def harmless() -> dict[str, bytes]:
    """Return content that must stay clean: honest pickles, and what is none."""
    state = collections.OrderedDict(
        weight=[0.5] * 100, bias={"a": (1, 2, 3)}, names=["layer.0", "os.system"], raw=bytes(range(256))
    )
    found = {f"state of protocol {number}": pickle.dumps(state, number) for number in range(6)}
    storage = b"((X\x07\x00\x00\x00storageq\x01ctorch\nFloatStorage\nq\x02X\x01\x00\x00\x000q\x03X\x03\x00\x00\x00cpuq\x04K\x06tq\x05Q"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\nq\x00" + storage
    tensor += (
        b"K\x00K\x02K\x03\x86q\x06K\x03K\x01\x86q\x07\x89ccollections\nOrderedDict\nq\x08)Rq\x09tq\x0aRq\x0b."
    )
    array = b"\x80\x02cnumpy.core.multiarray\n_reconstruct\nq\x00cnumpy\nndarray\nq\x01K\x00\x85q\x02c_codecs\nencode\nq\x03"
    array += b"X\x01\x00\x00\x00bq\x04X\x06\x00\x00\x00latin1q\x05\x86q\x06Rq\x07\x87q\x08Rq\x09(K\x01K\x02\x85q\x0acnumpy\ndtype\n"
    array += b"q\x0bX\x02\x00\x00\x00f8q\x0c\x89\x88\x87q\x0dRq\x0e(K\x03X\x01\x00\x00\x00<q\x0fNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xff"
    array += b"K\x00tq\x10b\x89h\x03X\x10\x00\x00\x00" + bytes(16) + b"q\x11h\x05\x86q\x12Rq\x13tq\x14b."
    found |= {
        "torch tensor": b"\x80\x02" + tensor,
        "legacy torch": pickle.dumps(0x1950A86A20F9469CFC6C, 2)
        + pickle.dumps(1001, 2)
        + b"\x80\x02"
        + tensor
        + pickle.dumps(["0"], 2)
        + struct.pack("<Q6f", 6, *range(6)),
        "numpy array": array,
        "sets and bytes of protocol 2": pickle.dumps(
            [{1, 2}, frozenset([3]), b"\xff\x00", 1j, bytearray(b"x")], 2
        ),
        "nothing": b"",
        "text": b"import os\nos.system('true')\n",
        "text of c": b"cat\ndog\nbird\nfish\n",
        "text of i": b"(i am\nhere\nand there\n",
        "JSON": b'{"auto_map": {}, "a": [1, 2, "os.system"]}\n',
        "weights": struct.pack("<64f", *[0.01 * number for number in range(64)]),
        "weights that begin like PROTO": b"\x80\x3f" * 64,
        "weights that begin like protocol 2": b"\x80\x02\xfe\xff" * 64,
        "zeros": bytes(1000),
        "weights that begin like a length beyond any file": b"\x96"
        + struct.pack("<Q", (1 << 63) - 9)
        + bytes(99),
        "text about pickles": pickle.dumps(
            "A pickle of os.system begins with `cos`, a line feed, and `system`."
        ),
        "large value": pickle.dumps([bytes(3 << 20), "x" * (3 << 20)]),
    }
    return found
