import time

import pytest

from stowage.client import plain_id
from stowage.commands.output import human_duration, human_size, local_time, plain, print_table


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (None, "-"),
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1024 * 1024 - 1, "1.0 MiB"),
        (int(1.5 * (1 << 30)), "1.5 GiB"),
        (1 << 70, "1024.0 EiB"),
    ],
)
def test_sizes_are_written_in_binary_units(size: int | None, text: str) -> None:
    assert human_size(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.84, "0.8 s"), (42, "42 s"), (59.7, "1:00 min"), (187, "3:07 min"), (3729, "1:02:09 h")],
)
def test_durations_are_written_for_people(seconds: float, text: str) -> None:
    assert human_duration(seconds) == text


def test_a_text_that_could_steer_a_terminal_or_hide_is_escaped() -> None:
    assert plain("a\x1b[2J\r\n\x9b\u202e\u2028\ud800\ue000b") == r"a\x1b[2J\r\n\x9b\u202e\u2028\ud800\ue000b"
    assert plain("모델 [bold]µ") == "모델 [bold]µ"


def test_times_are_written_in_this_machines_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Seoul")
    time.tzset()
    assert local_time("2026-11-22T12:00:00+00:00") == "2026-11-22 21:00:00"
    assert local_time("2026-11-22T12:00:00Z") == "2026-11-22 21:00:00"


def test_a_table_is_aligned_by_the_width_of_its_characters(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["NAME", "SIZE", "NOTE"], [["모델", "5", "a"], ["x", "1234567", "b"]], right=["SIZE"])
    assert capsys.readouterr().out.splitlines() == [
        "NAME     SIZE  NOTE",
        "모델        5  a",
        "x     1234567  b",
    ]


@pytest.mark.parametrize(
    "node_id",
    [
        "SW1wb3J0VGFzazozZjBjOWY1ZS04YTUyLTRiMGUtOWQ0OS0zZjhhNGI3YzJkMTE=",
        "3f0c9f5e-8a52-4b0e-9d49-3f8a4b7c2d11",
    ],
)
def test_a_nodes_id_is_shown_as_its_uuid(node_id: str) -> None:
    assert plain_id(node_id) == "3f0c9f5e-8a52-4b0e-9d49-3f8a4b7c2d11"


@pytest.mark.parametrize("node_id", ["r-1", "SW1wb3J0VGFzazp4", "////", ""])
def test_an_id_of_another_kind_is_shown_as_it_came(node_id: str) -> None:
    assert plain_id(node_id) == node_id
