"""Asking generators: each answer is paid for once, every request comes to an end, failures are counted."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
from asking import Writer, asking, says

from mkailin_resources.generation import CUT_OFF, Generation, TooManyFailures
from mkailin_resources.generation_store import GenerationStore
from mkailin_resources.models.interface import (
    Document,
    GenerationRequest,
    GenerationResult,
    GeneratorFault,
    ModelUnavailable,
    NotAReply,
    Section,
)
from mkailin_resources.storage import Storage


def requests(count: int, first: int = 0) -> list[GenerationRequest]:
    return [
        GenerationRequest(str(i), "question", Document(f"Title {i}.", (Section(None, None, f"Text {i}."),)))
        for i in range(first, first + count)
    ]


def no_fault(request: GenerationRequest, text: str) -> str | None:
    return None


def want_a_question(request: GenerationRequest, text: str) -> str | None:
    return None if text.endswith("?") else f"no question: {text}"


def asked_for_ten(failing: int, write: object) -> Writer:
    return paid(
        lambda one: write(one) if int(one.key) < failing else GenerationResult(one.key, text="Is it?")
    )  # type: ignore[operator]


def paid(write: object = None, **settings: object) -> Writer:
    return Writer(write or says("Is it?"), is_paid=True, **settings)  # type: ignore[arg-type]


def test_what_was_answered_is_not_asked_again(tmp_path: Path) -> None:
    model = paid()
    first = asking(tmp_path)(model, requests(300), no_fault)
    ask = asking(tmp_path)
    second = ask(model, requests(300), no_fault)
    assert first == second
    assert len(model.asked) == 300
    [tally] = ask.tallies
    assert (tally.requests, tally.reused, tally.generated, tally.failed) == (300, 300, 0, 0)
    assert (tally.tokens_in, tally.reused_tokens_in, tally.reused_tokens_out) == (0, 30_000, 3_000)


def test_what_changed_alone_is_asked(tmp_path: Path) -> None:
    model = paid()
    asking(tmp_path)(model, requests(100), no_fault)
    changed = [replace(one, document=Document("New.", ())) for one in requests(1, first=40)]
    replies = asking(tmp_path)(model, [*requests(40), *changed, *requests(59, first=41)], no_fault)
    assert [request.document.title for request in model.asked[100:]] == ["New."]
    assert len(replies) == 100


def test_a_refused_reply_is_asked_for_once_more_and_then_quarantined_with_its_text(tmp_path: Path) -> None:
    model = paid(lambda one: GenerationResult(one.key, text=f"Text {one.attempt}"))
    ask = asking(tmp_path)
    reply = ask(model, requests(1), want_a_question)["0"]
    assert [request.attempt for request in model.asked] == [0, 1]
    assert (reply.text, reply.failure, reply.refused) == (None, "no question: Text 1", "Text 1")
    assert (ask.tallies[0].generated, ask.tallies[0].failed) == (2, 1)
    again = asking(tmp_path)(model, requests(1), want_a_question)
    assert again["0"] == reply
    assert len(model.asked) == 2


def test_a_second_attempt_that_is_accepted_counts(tmp_path: Path) -> None:
    model = paid(lambda one: GenerationResult(one.key, text="Is it?" if one.attempt else "It is."))
    ask = asking(tmp_path)
    replies = ask(model, requests(20), want_a_question)
    assert {reply.text for reply in replies.values()} == {"Is it?"}
    assert (len(model.asked), ask.tallies[0].failed, ask.tallies[0].done) == (40, 0, 20)


def test_a_kinder_reading_makes_use_of_what_was_refused_before(tmp_path: Path) -> None:
    model = paid(says("It is."))
    asking(tmp_path)(model, requests(1), want_a_question)
    assert asking(tmp_path)(model, requests(1), no_fault)["0"].text == "It is."
    assert len(model.asked) == 2


def test_a_reply_that_was_cut_off_is_refused_whatever_it_says(tmp_path: Path) -> None:
    model = paid(lambda one: GenerationResult(one.key, text="Is it?", truncated=True))
    reply = asking(tmp_path)(model, requests(1), no_fault)["0"]
    assert (reply.failure, reply.refused, len(model.asked)) == (CUT_OFF, "Is it?", 2)


def test_a_failure_of_the_model_is_told_and_asked_again_by_the_next_run(tmp_path: Path) -> None:
    down = paid(lambda one: GenerationResult(one.key, failure="six times 500"))
    assert asking(tmp_path)(down, requests(1), no_fault)["0"].failure == "six times 500"
    assert len(down.asked) == 1
    assert asking(tmp_path)(paid(), requests(1), no_fault)["0"].text == "Is it?"


def test_two_rows_that_ask_the_same_are_paid_for_once(tmp_path: Path) -> None:
    model = paid()
    [one] = requests(1)
    replies = asking(tmp_path)(model, [one, replace(one, key="twin"), *requests(1, first=5)], no_fault)
    assert len(model.asked) == 2
    assert replies["twin"] == replies["0"]
    assert set(replies) == {"0", "twin", "5"}


def test_too_many_failures_fail_with_a_summary_and_keep_what_was_answered(tmp_path: Path) -> None:
    def write(one: GenerationRequest) -> GenerationResult:
        bad = int(one.key) < 3
        return GenerationResult(one.key, **({"failure": "error 500: x"} if bad else {"text": "Is it?"}))

    with pytest.raises(
        TooManyFailures, match=r"10 requests: 0 reused, 7 texts generated, 3 failed \(3 x error"
    ):
        asking(tmp_path, max_failed_share=0.29)(paid(write), requests(10), no_fault)
    again = paid(write)
    assert len(asking(tmp_path, max_failed_share=0.3)(again, requests(10), no_fault)) == 10
    assert len(again.asked) == 3


def test_rules_may_fail_as_often_as_they_do_and_store_nothing(tmp_path: Path) -> None:
    rules = Writer(lambda one: GenerationResult(one.key, failure="no claim"))
    replies = asking(tmp_path, max_failed_share=0.0)(rules, requests(3), no_fault)
    assert {reply.failure for reply in replies.values()} == {"no claim"}
    assert not list(tmp_path.rglob("*"))


def test_a_model_that_is_not_there_is_told_before_it_is_asked_and_not_missed_where_all_is_known(
    tmp_path: Path,
) -> None:
    gone = paid(is_there=False)
    with pytest.raises(ModelUnavailable, match="MKAILIN_MODEL"):
        asking(tmp_path)(gone, requests(3), no_fault)
    assert gone.asked == []
    asking(tmp_path)(paid(), requests(3), no_fault)
    assert len(asking(tmp_path)(gone, requests(3), no_fault)) == 3


def test_what_was_answered_before_a_model_died_is_kept(tmp_path: Path) -> None:
    def dies(one: GenerationRequest) -> GenerationResult:
        if one.key == "7":
            raise ModelUnavailable("it died")
        return GenerationResult(one.key, text="Is it?")

    with pytest.raises(ModelUnavailable, match="it died"):
        asking(tmp_path)(paid(dies), requests(20), no_fault)
    model = paid()
    asking(tmp_path)(model, requests(20), no_fault)
    assert [request.key for request in model.asked] == [str(i) for i in range(7, 20)]


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (lambda one: None, "left 1 of 1 requests without result"),
        (lambda one: GenerationResult("9", text="Is it?"), "which was not asked"),
        (lambda one: GenerationResult(one.key), "neither text nor failure"),
    ],
)
def test_a_generator_that_breaks_its_contract_is_an_error(tmp_path: Path, write: object, said: str) -> None:
    with pytest.raises(GeneratorFault, match=said):
        asking(tmp_path)(paid(write), requests(1), no_fault)


def test_a_long_run_says_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mkailin_resources.generation._REPORT_EVERY_S", 0.05)

    def slowly(one: GenerationRequest) -> GenerationResult:
        time.sleep(0.01)
        return GenerationResult(one.key, text="Is it?", tokens_out=10)

    said: list[str] = []
    asking(tmp_path, said=said)(paid(slowly), requests(30), no_fault)
    assert len(said) >= 3
    assert "of 30 requests" in said[0]
    assert "texts/s" in said[0]
    assert "left" in said[0]
    assert said[-1] == "scripted, 7: 30 requests: 0 reused, 30 texts generated, 0 failed"


def test_requests_are_looked_up_a_batch_ahead_and_no_further(tmp_path: Path) -> None:
    model = paid()
    looked_up: list[str] = []
    fingerprint = model.fingerprint

    class Watched(Writer):
        def fingerprint(self, request: GenerationRequest) -> str:
            looked_up.append(request.key)
            return fingerprint(request)

        def generate(self, requests: Iterable[GenerationRequest]) -> Iterator[GenerationResult]:
            asked = iter(requests)
            yield GenerationResult(next(asked).key, text="Is it?")
            time.sleep(0.2)
            assert len(looked_up) <= 2 * 256
            for one in asked:
                yield GenerationResult(one.key, text="Is it?")

    replies = asking(tmp_path)(Watched(says(""), is_paid=True), requests(2_000), no_fault)
    assert len(replies) == len(looked_up) == 2_000


def test_the_ledger_remembers_what_each_materialization_paid_and_saved(tmp_path: Path) -> None:
    asking(tmp_path)(paid(), requests(3), no_fault)
    asking(tmp_path)(paid(), requests(4), no_fault)
    ledger = GenerationStore(Storage(root=str(tmp_path))).ledger()
    assert ledger.select("asset", "partition", "requests", "reused", "generated", "tokens_in").rows() == [
        ("candidate_questions", "C23", 3, 0, 3, 300),
        ("candidate_questions", "C23", 4, 3, 1, 100),
    ]
    assert ledger["reused_tokens_in"].to_list() == [0, 300]


def test_money_is_counted_where_a_price_is_given_and_never_guessed(tmp_path: Path) -> None:
    generation = Generation(storage=Storage(root=str(tmp_path)), prices={"priced": [0.5, 2.0]})
    assert generation.price("priced", 1_000_000, 500_000) == 1.5
    assert generation.price("other", 1_000_000, 500_000) is None


def test_a_handful_of_refused_replies_fails_no_small_branch_and_more_do(tmp_path: Path) -> None:
    def refused(one: GenerationRequest) -> GenerationResult:
        return GenerationResult(one.key, text="It is.")

    few = asking(tmp_path / "few", max_failed_share=0.2)
    assert len(few(asked_for_ten(4, refused), requests(10), want_a_question)) == 10
    with pytest.raises(TooManyFailures):
        asking(tmp_path / "many", max_failed_share=0.2)(
            asked_for_ten(5, refused), requests(10), want_a_question
        )


def test_a_reply_that_is_not_of_the_form_asked_for_is_quarantined(tmp_path: Path) -> None:
    class Strict(Writer):
        def read(self, request: GenerationRequest, text: str) -> str:
            raise NotAReply("not the form asked for")

    reply = asking(tmp_path)(Strict(says("Is it?"), is_paid=True), requests(1), no_fault)["0"]
    assert (reply.text, reply.refused) == (None, "Is it?")
    assert reply.failure == "not the form asked for: Is it?"


def test_a_generator_that_stops_early_is_an_error_even_at_the_end_of_a_batch(tmp_path: Path) -> None:
    class Tired(Writer):
        def generate(self, requests: Iterable[GenerationRequest]) -> Iterator[GenerationResult]:
            for request in islice(requests, 256):
                yield GenerationResult(request.key, text="Is it?")

    with pytest.raises(GeneratorFault, match="of 2000 requests"):
        asking(tmp_path)(Tired(says("")), requests(2_000), no_fault)
