"""Who gets a connection, and when: bounds, fairness, and hosts that complain."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from uuid import UUID, uuid4

import pytest

from storage_proxy.transfer import gate as gate_module
from storage_proxy.transfer.gate import Claimant, ConnectionGate
from storage_proxy.transfer.line import Cut, Line
from tests.transfer.clock import Clock
from tests.transfer.waiting import until

ANN, BOB = UUID(int=1), UUID(int=2)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(gate_module, "time", clock)
    monkeypatch.setattr(gate_module, "_LOOK", 0.005)
    return clock


class Crowd:
    """Threads that want connections; each holds its own until it is told to let go."""

    def __init__(self, gate: ConnectionGate) -> None:
        self.gate = gate
        self.holding: list[str] = []
        self._lets_go: dict[str, threading.Event] = {}
        self._threads: list[threading.Thread] = []
        self.line = Line()

    def want(self, name: str, claimant: Claimant) -> None:
        """Wait in a thread, behind those that wait already."""
        before = self._seen()
        self._lets_go[name] = threading.Event()
        thread = threading.Thread(target=self._hold, args=(name, claimant))
        thread.start()
        self._threads.append(thread)
        until(lambda: self._seen() > before)

    def _seen(self) -> int:
        """Count who waits and who holds, once everybody who may hold does."""
        until(lambda: self.gate._held == len(self.holding))
        return len(self.gate._waiting) + len(self.holding)

    def _hold(self, name: str, claimant: Claimant) -> None:
        with suppress(Cut):
            with self.gate.connection(claimant, self.line):
                self.holding.append(name)
                self._lets_go[name].wait()
            self.holding.remove(name)

    def let_go(self, name: str) -> None:
        self._lets_go[name].set()
        until(lambda: name not in self.holding)
        self._seen()

    def end(self) -> None:
        self.line.cut()
        for event in self._lets_go.values():
            event.set()
        for thread in self._threads:
            thread.join(5)
            assert not thread.is_alive()


@pytest.fixture
def crowd(clock: Clock) -> Iterator[Callable[..., Crowd]]:
    with ExitStack() as stack:

        def gathered(*, per_host: int, total: int) -> Crowd:
            made = Crowd(ConnectionGate(per_host=per_host, total=lambda: total))
            stack.callback(made.end)
            return made

        yield gathered


def claim(host: str = "a", user: UUID = ANN, import_id: UUID | None = None) -> Claimant:
    return Claimant(host, user, import_id or uuid4())


def test_a_host_bears_only_so_many(crowd: Callable[..., Crowd]) -> None:
    people = crowd(per_host=3, total=100)
    for number in range(6):
        people.want(f"a{number}", claim("a"))
    people.want("b", claim("b"))
    assert sorted(people.holding) == ["a0", "a1", "a2", "b"]


def test_all_hosts_together_bear_only_so_many(crowd: Callable[..., Crowd]) -> None:
    people = crowd(per_host=3, total=4)
    for host in "abc":
        for number in range(3):
            people.want(f"{host}{number}", claim(host))
    assert len(people.holding) == 4


def test_there_is_always_one_however_small_the_share(crowd: Callable[..., Crowd]) -> None:
    people = crowd(per_host=3, total=0)
    people.want("one", claim())
    people.want("two", claim())
    assert people.holding == ["one"]


def test_who_waits_longest_comes_first_among_equals(crowd: Callable[..., Crowd]) -> None:
    people = crowd(per_host=1, total=10)
    one = uuid4()
    for name in ("first", "second", "third"):
        people.want(name, claim(import_id=one))
    people.let_go("first")
    assert people.holding == ["second"]
    people.let_go("second")
    assert people.holding == ["third"]


def test_a_user_with_less_comes_before_one_with_more(crowd: Callable[..., Crowd]) -> None:
    people = crowd(per_host=2, total=10)
    for number in range(5):
        people.want(f"ann{number}", claim(user=ANN))
    people.want("bob", claim(user=BOB))
    people.let_go("ann0")
    assert sorted(people.holding) == ["ann1", "bob"]


def test_an_import_with_less_comes_before_another_of_the_same_user(crowd: Callable[..., Crowd]) -> None:
    people = crowd(per_host=2, total=10)
    large, small = uuid4(), uuid4()
    for number in range(5):
        people.want(f"large{number}", claim(import_id=large))
    people.want("small", claim(import_id=small))
    people.let_go("large0")
    assert sorted(people.holding) == ["large1", "small"]


def test_one_users_many_imports_take_no_more_than_anothers_one(crowd: Callable[..., Crowd]) -> None:
    people = crowd(per_host=4, total=10)
    imports = [uuid4() for _ in range(4)]
    for number in range(12):
        people.want(f"ann{number}", claim(user=ANN, import_id=imports[number % 4]))
    for number in range(4):
        people.want(f"bob{number}", claim(user=BOB))
    for _ in range(2):
        people.let_go(next(name for name in people.holding if name.startswith("ann")))
    assert sum(name.startswith("bob") for name in people.holding) == 2


def test_a_complaint_halves_what_a_host_is_asked_at_once(crowd: Callable[..., Crowd], clock: Clock) -> None:
    gate = crowd(per_host=8, total=100).gate
    gate.complained("a")
    assert (gate.bound("a"), gate.bound("b")) == (4, 8)
    gate.complained("a")  # of a request that was under way already
    assert gate.bound("a") == 4
    for bound in (2, 1, 1):
        clock.now += 2
        gate.complained("a")
        assert gate.bound("a") == bound


def test_after_a_while_without_a_complaint_a_host_is_asked_more_again(
    crowd: Callable[..., Crowd], clock: Clock
) -> None:
    gate = crowd(per_host=6, total=100).gate
    for _ in range(4):
        clock.now += 2
        gate.complained("a")
    bounds = []
    for _ in range(5):
        clock.now += 10.5
        bounds.append(gate.bound("a"))
    assert bounds == [2, 4, 6, 6, 6]


def test_who_holds_a_connection_keeps_it_through_a_complaint(crowd: Callable[..., Crowd]) -> None:
    people = crowd(per_host=4, total=100)
    for number in range(5):
        people.want(f"{number}", claim())
    people.gate.complained("a")
    assert people.holding == ["0", "1", "2", "3"]
    people._lets_go["0"].set()
    people._lets_go["1"].set()
    until(lambda: people.holding == ["2", "3"])
    people.let_go("2")
    assert people.holding == ["3", "4"]


def test_a_host_that_wants_a_pause_is_left_alone_so_long(crowd: Callable[..., Crowd], clock: Clock) -> None:
    people = crowd(per_host=4, total=100)
    people.gate.complained("a", 7.0)
    people.gate.complained("a", 3.0)
    people.want("patient", claim("a"))
    people.want("elsewhere", claim("b"))
    assert people.holding == ["elsewhere"]
    clock.now += 6.9
    people.want("late", claim("a"))
    assert people.holding == ["elsewhere"]
    clock.now += 0.2
    until(lambda: sorted(people.holding) == ["elsewhere", "late", "patient"])


def test_a_cut_line_ends_the_wait_and_takes_nothing(crowd: Callable[..., Crowd]) -> None:
    people = crowd(per_host=1, total=1)
    people.want("holds", claim())
    line, ended = Line(), threading.Event()

    def wait() -> None:
        with pytest.raises(Cut), people.gate.connection(claim(), line):
            pass
        ended.set()

    threading.Thread(target=wait).start()
    until(lambda: people.gate._waiting)
    line.cut()
    assert ended.wait(5)
    people.want("next", claim())
    people.let_go("holds")
    assert people.holding == ["next"]


def test_nothing_is_counted_for_ever(crowd: Callable[..., Crowd]) -> None:
    people = crowd(per_host=2, total=3)
    with pytest.raises(ZeroDivisionError), people.gate.connection(claim(), Line()):
        _ = 1 / 0
    cut = Line()
    cut.cut()
    with pytest.raises(Cut), people.gate.connection(claim(), cut):
        pass
    assert (people.gate._held, people.gate._users, people.gate._imports) == (0, {}, {})
    assert people.gate._waiting == []


def test_many_at_once_never_exceed_a_bound() -> None:
    gate = ConnectionGate(per_host=3, total=lambda: 5)
    lock = threading.Lock()
    open_now = {"a": 0, "b": 0}
    wrong: list[dict[str, int]] = []

    def work(host: str) -> None:
        for _ in range(40):
            with gate.connection(claim(host, uuid4()), Line()):
                with lock:
                    open_now[host] += 1
                    if open_now[host] > 3 or sum(open_now.values()) > 5:
                        wrong.append(dict(open_now))
                with lock:
                    open_now[host] -= 1

    threads = [threading.Thread(target=work, args=("ab"[number % 2],)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert wrong == []
    assert gate._held == 0
