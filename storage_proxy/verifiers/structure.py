"""The structure of files: what they are whatever they are called, what lies in their containers, and what their formats can be made to do."""

from collections import deque
from typing import BinaryIO

from storage_proxy.verifiers import pickle_stream
from storage_proxy.verifiers.arrays import examine_arrays
from storage_proxy.verifiers.base import FileResult, SandboxedVerifier
from storage_proxy.verifiers.containers import CONTAINERS, walk
from storage_proxy.verifiers.disguise import examine_disguise, is_called_text
from storage_proxy.verifiers.examination import HEAD, STOPS, Content, Examination
from storage_proxy.verifiers.gguf import examine_gguf
from storage_proxy.verifiers.graphs import FLEX, examine_onnx, examine_tensorflow, graph_of
from storage_proxy.verifiers.keras import examine_embedded
from storage_proxy.verifiers.kinds import UNOPENED, Kind, kind_of
from storage_proxy.verifiers.pickle import examine_pickle
from storage_proxy.verifiers.policy import Policy
from storage_proxy.verifiers.protobufs import Message
from storage_proxy.verifiers.streams import Budget
from storage_proxy.verifiers.texts import examine_text
from storage_proxy.verifiers.zips import has_directory

_SHARE = 0.9
"""Of the time for a file: what was found until then is reported."""
_SUPERBLOCK = b"\x89HDF\r\n\x1a\n"
_LITE = b"TFL3"
_PROTOCOL = b"\x80"
"""How every pickle begins that NumPy writes."""
_PIECE = 1 << 20


class StructureVerifier(SandboxedVerifier):
    """Opens containers and reads headers, configurations and graphs. Weights are passed over."""

    name = "structure"
    version = "1"

    def examine(self, path: str, stream: BinaryIO, size: int, policy: Policy) -> FileResult:
        limits = policy.limits
        budget = Budget(
            unpacked=limits.output,
            members=limits.members,
            seconds=limits.seconds * _SHARE,
            ratio=limits.ratio,
        )
        examination = Examination(path, policy, budget, pickle_stream.Budget.of(limits))
        _look(Content(examination, stream, size, path))
        return examination.result()


def _look(content: Content) -> Kind:
    """Examine one content, whatever it is, and say what it was. What could not be examined leaves a gap."""
    head = content.read_at(0, HEAD)
    size = len(head) if len(head) < HEAD else content.known_size
    kind = kind_of(head, size)
    examine_disguise(content, kind, head)
    try:
        content.budget.check_time()
        if kind in CONTAINERS:
            walk(content, kind, _look)
        elif kind in UNOPENED:
            content.gap(f"{kind.value} is not opened")
        else:
            _examine(content, kind, head)
        if kind is not Kind.ZIP and has_directory(content.stream, content.size):
            content.block(
                "polyglot", "disguise", f"the file is {kind.value} and a zip archive at the same time"
            )
    except STOPS as exc:
        content.gap(exc)
    if content.depth and kind not in {Kind.ZIP, Kind.TAR, Kind.NPY, Kind.EMPTY}:
        _examine_pickles(content)
    return kind


def _examine(content: Content, kind: Kind, head: bytes) -> None:
    if kind is Kind.NPY:
        pickled = examine_arrays(content)
        if pickled is not None:
            _examine_pickles(pickled)
            if pickled.read_at(0, 1) != _PROTOCOL:
                content.gap("an array of Python objects that are no pickle")
    elif kind is Kind.GGUF:
        examine_gguf(content)
    elif kind is Kind.HDF5:
        examine_embedded(content)
    elif kind in {Kind.TEXT, Kind.SCRIPT, Kind.HTML, Kind.PYC} or is_called_text(content):
        examine_text(content, head)
    if kind in {Kind.OTHER, Kind.TEXT}:
        _examine_data(content, head)


def _examine_data(content: Content, head: bytes) -> None:
    """Examine what has no magic of its own: graphs in protocol buffers, and HDF5 behind a block of something else."""
    graph = graph_of(content)
    if content.suffix == ".onnx" or graph == "model":
        examine_onnx(content)
    elif graph is not None:
        examine_tensorflow(content, graph)
    elif content.suffix == ".pb":
        deque(Message(content).fields(), maxlen=0)
        examine_embedded(content)
    if head[4:8] == _LITE:
        at = 0
        while piece := content.read_at(at, _PIECE + HEAD):
            if found := FLEX.search(piece):
                content.block(
                    "tensorflow-operation", "format", f"the graph has the operation {found[0].decode()}"
                )
                break
            at += _PIECE
    at = 512
    limit = content.known_size or len(head)
    while at < limit:
        block = head[at : at + len(_SUPERBLOCK)] if at < len(head) else content.read_at(at, len(_SUPERBLOCK))
        if block == _SUPERBLOCK:
            examine_embedded(content)
            break
        at *= 2


def _examine_pickles(content: Content) -> None:
    """Have the pickle machine read what some loader may unpickle; it ends at once where that is no pickle."""
    examination = content.examination
    content.stream.seek(0)
    result = examine_pickle(
        content.stream,
        examination.policy,
        path=examination.path,
        member=content.member,
        depth=content.depth,
        budget=examination.opcodes,
    )
    for finding in result.findings:
        examination.add(finding)
    if not result.covered:
        content.gap(result.reason or "the pickle was not examined to its end")
