"""The buffers of a worker: bounded, and each comes back."""

import threading
from uuid import uuid4

import pytest

from storage_proxy.transfer import buffers as buffers_module
from storage_proxy.transfer.buffers import SIZE, Buffers
from storage_proxy.transfer.line import Cut, Line
from tests.transfer.waiting import until


def test_there_are_never_more_than_so_many() -> None:
    buffers, line = Buffers(3), Line()
    taken = [buffers.take(line) for _ in range(3)]
    assert {len(buffer) for buffer in taken} == {SIZE}
    got: list[memoryview] = []
    waiting = threading.Thread(target=lambda: got.append(buffers.take(line)))
    waiting.start()
    waiting.join(0.1)
    assert waiting.is_alive()
    buffers.give_back(taken[1])
    waiting.join(5)
    assert got[0] is taken[1]


def test_none_is_made_before_it_is_needed_and_none_twice() -> None:
    buffers, line = Buffers(3), Line()
    first = buffers.take(line)
    buffers.give_back(first)
    assert buffers.take(line) is first
    assert (buffers._made, buffers.taken) == (1, 1)


def test_a_cut_line_ends_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buffers_module, "_LOOK", 0.01)
    buffers, line = Buffers(1), Line()
    buffers.take(Line())
    ends: list[BaseException] = []

    def wait() -> None:
        try:
            buffers.take(line)
        except Cut as exc:
            ends.append(exc)

    waiting = threading.Thread(target=wait, name=str(uuid4()))
    waiting.start()
    line.cut()
    waiting.join(5)
    assert len(ends) == 1


def test_one_that_several_use_comes_back_with_the_last() -> None:
    buffers, line = Buffers(1), Line()
    release = buffers.returning(buffers.take(line), 3)
    for _ in range(2):
        release()
        assert buffers._idle == []
    release()
    assert len(buffers._idle) == 1
    release()  # one call too many gives nothing twice
    assert len(buffers._idle) == 1


def test_many_at_once_get_each_its_own() -> None:
    buffers, line = Buffers(4), Line()
    lock, held, wrong = threading.Lock(), set[int](), []

    def work() -> None:
        for _ in range(200):
            buffer = buffers.take(line)
            with lock:
                if id(buffer.obj) in held:
                    wrong.append(buffer)
                held.add(id(buffer.obj))
            with lock:
                held.discard(id(buffer.obj))
            buffers.returning(buffer)()

    threads = [threading.Thread(target=work) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert wrong == []
    until(lambda: not buffers.taken)
