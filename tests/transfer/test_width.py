"""How many connections one import comes to use, given what they bring."""

import itertools

import pytest

from storage_proxy.transfer import width as width_module
from storage_proxy.transfer.width import Width
from tests.transfer.clock import Clock

MOST = 16


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(width_module, "time", clock)
    return clock


class Source:
    """What so many connections bring, and how long their receivers wait for it."""

    def __init__(self, clock: Clock, *, each: float, all_of_them: float, hungry: float = 1.0) -> None:
        self.clock = clock
        self.each = each
        self.all_of_them = all_of_them
        self.hungry = hungry

    def drive(self, width: Width, ticks: int, most: int = MOST) -> list[int]:
        """Return the widths at the ticks."""
        seen = []
        for _ in range(ticks):
            self.clock.now += width_module.TICK
            width.tick(min(self.all_of_them, width.now * self.each), self.hungry, most)
            seen.append(width.now)
        return seen


def test_a_source_that_caps_each_connection_is_asked_over_as_many_as_may_be(clock: Clock) -> None:
    width = Width(2)
    seen = Source(clock, each=40.0, all_of_them=1e9).drive(width, 10)
    assert seen[-1] == MOST
    assert seen.index(MOST) <= 5


def test_a_source_that_gives_no_more_is_asked_over_few_again(clock: Clock) -> None:
    width = Width(2)
    seen = Source(clock, each=40.0, all_of_them=80.0).drive(width, 5)
    assert max(seen) > 2
    assert seen[-1] == 2


def test_who_is_not_waiting_for_the_source_wants_no_more_of_it(clock: Clock) -> None:
    width = Width(2)
    assert set(Source(clock, each=40.0, all_of_them=1e9, hungry=0.4).drive(width, 50)) == {2}


def test_it_is_tried_again_ever_more_rarely(clock: Clock) -> None:
    width = Width(2)
    seen = [2, *Source(clock, each=40.0, all_of_them=80.0).drive(width, 3000)]
    tries = [tick for tick in range(1, len(seen)) if seen[tick] > seen[tick - 1]]
    gaps = [(later - earlier) * width_module.TICK for earlier, later in itertools.pairwise(tries)]
    assert gaps[0] < 4
    assert all(later > 1.5 * earlier for earlier, later in itertools.pairwise(gaps[:5]))
    assert max(gaps) < 65


def test_a_source_that_gives_more_later_is_found_out(clock: Clock) -> None:
    width = Width(2)
    Source(clock, each=40.0, all_of_them=80.0).drive(width, 100)
    assert Source(clock, each=40.0, all_of_them=1e9).drive(width, 700)[-1] == MOST


def test_it_never_exceeds_what_is_allowed_and_follows_it_down(clock: Clock) -> None:
    width, source = Width(2), Source(clock, each=40.0, all_of_them=1e9)
    assert max(source.drive(width, 20, most=5)) == 5
    assert source.drive(width, 1, most=1) == [1]
    assert max(source.drive(width, 20, most=3)) == 3


def test_one_connection_grows_too(clock: Clock) -> None:
    assert Source(clock, each=40.0, all_of_them=1e9).drive(Width(1), 20)[-1] == MOST


def test_nothing_at_all_is_no_reason_for_more(clock: Clock) -> None:
    """A source that stalls is not helped by more connections that stall."""
    width = Width(4)
    assert Source(clock, each=0.0, all_of_them=0.0).drive(width, 4)[-1] == 4
