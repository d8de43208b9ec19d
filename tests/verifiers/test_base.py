from collections.abc import Sequence
from uuid import UUID

from hypothesis import example, given
from hypothesis import strategies as st

from proxy_client.wire import Finding, Waiver
from storage_proxy.verifiers.base import Outcome, judge, plain, waive

VERDICTS = ["clean", "flagged", "incomplete", "blocked"]
PATHS = ["a", "b", "c"]

findings = st.builds(
    Finding,
    file=st.sampled_from(PATHS),
    rule=st.just("rule"),
    category=st.just("code"),
    severity=st.sampled_from(["note", "flag", "block", "unheard of"]),
    message=st.just(""),
)
outcomes = st.builds(
    Outcome,
    name=st.just("name"),
    version=st.just("1"),
    required=st.booleans(),
    covered=st.sets(st.sampled_from(PATHS)),
    findings=st.lists(findings, max_size=3),
    errors=st.lists(st.just("error"), max_size=1),
)
planned = st.sets(st.sampled_from(PATHS))


def rank(given: Sequence[Outcome], paths: set[str]) -> int:
    return VERDICTS.index(judge(given, paths))


def outcome(*severities: str, covered: str = "abc", required: bool = True, error: bool = False) -> Outcome:
    found = [Finding(file="a", rule="r", category="c", severity=each, message="") for each in severities]
    return Outcome("name", "1", required, set(covered), found, ["error"] if error else [])


def test_what_was_wholly_looked_at_without_a_finding_is_clean() -> None:
    assert judge([outcome(), outcome("note")], set(PATHS)) == "clean"


def test_a_flag_asks() -> None:
    assert judge([outcome(), outcome("flag")], set(PATHS)) == "flagged"


def test_a_block_refuses_whatever_else_there_is() -> None:
    assert judge([outcome("flag", covered="", error=True), outcome("block")], set(PATHS)) == "blocked"


def test_a_severity_that_is_not_known_refuses() -> None:
    assert judge([outcome("fine")], set(PATHS)) == "blocked"


def test_no_verifier_is_incomplete() -> None:
    assert judge([], set(PATHS)) == "incomplete"


def test_only_optional_verifiers_are_incomplete() -> None:
    assert judge([outcome(required=False)], set(PATHS)) == "incomplete"


def test_no_file_is_incomplete() -> None:
    assert judge([outcome()], set()) == "incomplete"


def test_one_file_less_is_incomplete() -> None:
    assert judge([outcome(), outcome(covered="ab")], set(PATHS)) == "incomplete"


def test_an_error_is_incomplete_even_with_coverage() -> None:
    assert judge([outcome(error=True)], set(PATHS)) == "incomplete"


def test_the_gap_of_an_optional_verifier_does_not_count_but_its_findings_do() -> None:
    assert judge([outcome(), outcome(covered="", required=False, error=True)], set(PATHS)) == "clean"
    assert judge([outcome(), outcome("block", covered="", required=False)], set(PATHS)) == "blocked"


@given(st.lists(outcomes, max_size=3), planned, st.data())
def test_worse_answers_never_make_a_better_verdict(
    given: list[Outcome], paths: set[str], data: st.DataObject
) -> None:
    before = rank(given, paths)
    if given:
        worse = data.draw(st.sampled_from(given))
        worse.findings.append(data.draw(findings))
        if data.draw(st.booleans()):
            worse.errors.append("error")
        worse.covered -= data.draw(st.sets(st.sampled_from(PATHS)))

    assert rank(given, paths) >= before


@given(st.lists(outcomes, min_size=1, max_size=3), planned, outcomes)
def test_one_more_verifier_makes_a_verdict_better_only_where_none_was_required(
    given: list[Outcome], paths: set[str], more: Outcome
) -> None:
    if any(each.required for each in given):
        assert rank([*given, more], paths) >= rank(given, paths)


@given(st.lists(outcomes, max_size=3), planned)
def test_the_order_of_verifiers_does_not_matter(given: list[Outcome], paths: set[str]) -> None:
    assert rank(given, paths) == rank(given[::-1], paths)


WAIVER = Waiver(id=UUID(int=1), verifier="name", rule="r", file="a")


def waived(found: Finding, *waivers: Waiver, verifier: str = "name") -> UUID | None:
    return waive(verifier, found, waivers).waiver


def test_a_waiver_lets_pass_what_it_names_and_nothing_else() -> None:
    (found,) = outcome("block").findings
    whole = Waiver(id=UUID(int=2), verifier="name")

    assert waived(found, WAIVER) == waived(found, WAIVER, whole) == WAIVER.id
    assert waived(found, whole) == whole.id
    for other in ({"verifier": "other"}, {"rule": "other"}, {"file": "b"}):
        assert waived(found, WAIVER.model_copy(update=other)) is None
    assert waived(found) is None


def test_nothing_waives_what_integrity_finds() -> None:
    everything = Waiver(id=UUID(int=1), verifier="integrity")
    (found,) = outcome("block").findings
    assert waived(found, everything, verifier="integrity") is None


def test_a_verifier_cannot_waive() -> None:
    (found,) = outcome("block").findings
    assert waived(found.model_copy(update={"waiver": WAIVER.id})) is None


def test_a_waived_finding_does_not_count_and_a_gap_still_does() -> None:
    passed = outcome("block")
    passed.findings = [waive("name", found, [WAIVER]) for found in passed.findings]
    assert judge([passed], set(PATHS)) == "clean"
    passed.covered.remove("b")
    assert judge([passed], set(PATHS)) == "incomplete"


@given(st.text())
@example("\0" * 499)
@example("\0" * 501)
def test_a_report_holds_only_what_can_be_printed_and_stored(text: str) -> None:
    shown = plain(text)

    assert shown.isprintable()
    assert shown.encode().decode() == shown
    assert len(shown) <= 500
    assert plain(shown) == shown
