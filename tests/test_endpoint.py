"""A model behind an endpoint: every prompt comes to one result, whatever the server does meanwhile."""

import asyncio
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from functools import partial
from pathlib import Path

import pytest
from model_server import Fault, ModelServer, model_server, prompt_id

from mkailin_resources.models import endpoint as module
from mkailin_resources.models.endpoint import Endpoint
from mkailin_resources.models.interface import GenerationResult, ModelUnavailable
from mkailin_resources.models.language_model import LanguageModel, Message, Prompt, Sampling
from mkailin_resources.models.model_name import ModelName

QUESTION = json.dumps({"type": "object", "properties": {"question": {"type": "string"}}})
KEY = "sk-very-secret-0123456789"
ALWAYS = 1000

# What befalls a prompt that holds the word; each is answered well when it comes again.
PASSING = {
    "dropped": Fault("drop", match="dropped"),
    "halved": Fault("drop_half", match="halved"),
    "garbled": Fault("malformed", match="garbled", message='{"choices": ['),
    "choiceless": Fault("malformed", match="choiceless", message='{"error": {"message": "engine is ill"}}'),
    "late": Fault("delay", match="late", seconds=20),
    **{
        f"status{status}": Fault("status", match=f"status{status}", status=status)
        for status in (408, 409, 425, 429, 500, 502, 503, 504, 529)
    },
}
# What does not pass, and what it comes to.
LASTING = {
    "poison": Fault("drop", match="poison", times=ALWAYS),
    "broken": Fault("status", match="broken", times=ALWAYS, message="engine is ill, KEY"),
    "refused400": Fault("status", match="refused400", status=400, message="too long, KEY " + "x " * 5000),
    "refused413": Fault("status", match="refused413", status=413),
    "refused422": Fault("status", match="refused422", status=422),
    "forbidden": Fault("status", match="forbidden", status=403, message="KEY may not"),
    "elsewhere": Fault("status", match="elsewhere", status=307, message="/stats"),
    "cut": Fault("truncated", match="cut"),
    "mute": Fault("empty", match="mute"),
    "prim": Fault("refusal", match="prim"),
    "crowded": Fault("status", match="crowded", status=503, times=9),
    "slow": Fault("delay", match="slow", seconds=60),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    """A server whose faults are chosen by words of the prompts; tests ask it different prompts."""
    faults = [*PASSING.values(), *LASTING.values()]
    with model_server(tmp_path_factory.mktemp("server"), faults=faults) as running:
        yield running


@pytest.fixture
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FIRST_BACKOFF_S", 0.02)
    monkeypatch.setattr(module, "_LONGEST_BACKOFF_AWAY_S", 0.1)


def prompt(content: str, json_schema: str = "") -> Prompt:
    return Prompt(content, (Message("system", "Write."), Message("user", content)), json_schema, Sampling(99))


def prompts(count: int, about: str) -> Iterator[Prompt]:
    return (prompt(f"{about} number {index}") for index in range(count))


def endpoint(url: str, concurrency: int = 16, key: str = "", **settings: float) -> Endpoint:
    return Endpoint(ModelName("tiny"), url, concurrency, lambda: key, **settings)


def by_key(results: Iterator[GenerationResult]) -> dict[str, GenerationResult]:
    """The results; fails if a prompt has two."""
    found: dict[str, GenerationResult] = {}
    for result in results:
        assert result.key not in found
        found[result.key] = result
    return found


def is_running() -> bool:
    return any(thread.name == "endpoint" for thread in threading.enumerate())


def test_a_reply_satisfies_the_schema_and_counts_its_tokens(server: ModelServer) -> None:
    model: LanguageModel = endpoint(server.url)
    (result,) = model.complete([prompt("aspirin prevents strokes", QUESTION)])
    assert result.text is not None
    assert json.loads(result.text)["question"].startswith("Does aspirin")
    assert (result.tokens_in, result.tokens_out, result.truncated) == (4, 6, False)


def test_cut_empty_and_refused_replies_are_told_apart(server: ModelServer) -> None:
    results = by_key(endpoint(server.url).complete(map(prompt, ["cut", "mute", "prim"])))
    assert results["cut"].truncated
    assert (results["mute"].text, results["mute"].truncated) == ("", False)
    assert results["prim"].text == "I cannot help with that."


@pytest.mark.parametrize("word", PASSING)
def test_a_passing_fault_costs_no_result(server: ModelServer, word: str, short_waits: None) -> None:
    timeout_s = 0.5 if word == "late" else 60
    asked = [f"{word} one", f"{word} two", f"well, not {word[1:]}"]
    results = by_key(endpoint(server.url, timeout_s=timeout_s).complete(map(prompt, asked)))
    assert results.keys() == set(asked)
    assert all(result.text for result in results.values())
    stats = server.stats()
    assert [stats.asked[prompt_id(content)] for content in asked] == [2, 2, 1]
    assert [stats.answered[prompt_id(content)] for content in asked] == [1, 1, 1]


def test_of_500_prompts_with_many_faults_each_is_answered_once(tmp_path: Path, short_waits: None) -> None:
    kinds = ("drop", "drop_half", "malformed", "status")
    faults = [
        *(Fault(kind, share=0.06, times=2) for kind in kinds),
        Fault("status", share=0.06, status=429, times=3),
    ]
    with model_server(tmp_path, faults=faults, delay_s=0.02) as server:
        results = by_key(endpoint(server.url, 64).complete(prompts(500, "mixed")))
        stats = server.stats()
    assert len(results) == 500
    assert all(result.text for result in results.values())
    assert set(stats.answered.values()) == {1}
    assert sum(stats.asked.values()) > 500 + 250
    assert stats.most_in_flight <= 64


def test_a_killed_server_is_waited_for(tmp_path: Path, short_waits: None) -> None:
    found = {}
    with model_server(tmp_path, delay_s=0.1) as server:
        for result in endpoint(server.url, 32).complete(prompts(300, "killed")):
            assert result.key not in found
            found[result.key] = result
            if len(found) == 100:
                server.kill()
                again = threading.Timer(1.0, server.start)
                again.start()
        again.join()
        stats = server.stats()
    assert len(found) == 300
    assert all(result.text for result in found.values())
    assert stats.answered_twice == 0
    assert sum(stats.asked.values()) > 300


def test_a_server_that_dies_by_itself_is_waited_for(tmp_path: Path, short_waits: None) -> None:
    with model_server(tmp_path, delay_s=0.05, die_after=60) as server:
        again = threading.Timer(1.5, server.restart)
        again.start()
        results = by_key(endpoint(server.url, 8).complete(prompts(100, "dying")))
        again.join()
    assert len(results) == 100
    assert all(result.text for result in results.values())


def test_patience_ends_and_what_was_answered_is_handed_over(tmp_path: Path) -> None:
    found = []

    def take() -> None:
        for result in endpoint(server.url, 4, patience_s=1).complete(prompts(100, "patience")):
            found.append(result)

    with model_server(tmp_path, die_after=40) as server:
        begun = time.monotonic()
        with pytest.raises(ModelUnavailable, match=r"nothing for .*start the server again") as raised:
            take()
        assert 1 <= time.monotonic() - begun < 5
        assert server.url in str(raised.value)
        answered = [event for _, event, _ in server.events() if event == "answered"]
    assert len(found) == len(answered) >= 35
    assert not is_running()


@pytest.mark.parametrize("retry_after", [lambda: "1", lambda: formatdate(time.time() + 2.5, usegmt=True)])
def test_retry_after_holds_back_all_workers(tmp_path: Path, retry_after: Callable[[], str]) -> None:
    fault = Fault("status", status=429, match="number 20", retry_after=retry_after())
    with model_server(tmp_path, faults=[fault], delay_s=0.02) as server:
        results = by_key(endpoint(server.url, 8).complete(prompts(60, "held")))
        events = server.events()
    assert len(results) == 60
    refused_at = next(at for at, event, _ in events if event == "status")
    asked_later = [at - refused_at for at, event, _ in events if event == "asked" and at > refused_at + 0.1]
    assert len(asked_later) > 30
    assert min(asked_later) > 0.9


def test_a_lasting_fault_becomes_a_failure_and_others_go_on(server: ModelServer, short_waits: None) -> None:
    contents = ["broken for good", "poison for good", *(f"sound {index}" for index in range(2000))]
    results = by_key(endpoint(server.url, 8).complete(map(prompt, contents)))
    assert len(results) == len(contents)
    failed = {key: result.failure for key, result in results.items() if result.failure}
    assert failed.keys() == {"broken for good", "poison for good"}
    assert "it answered 500, 6 times: engine is ill" in str(failed["broken for good"])
    assert "dropped the connection" in str(failed["poison for good"])
    assert server.stats().asked[prompt_id("broken for good")] == 6


def test_a_crowded_server_is_not_blamed_on_the_request(server: ModelServer, short_waits: None) -> None:
    (result,) = endpoint(server.url).complete([prompt("crowded")])
    assert result.text
    assert server.stats().asked[prompt_id("crowded")] == 10


@pytest.mark.parametrize("word", ["refused400", "refused413", "refused422"])
def test_a_refused_prompt_is_a_failure_at_once(server: ModelServer, word: str) -> None:
    results = by_key(endpoint(server.url).complete(map(prompt, [word, f"well, not {word[1:]}"])))
    failure = results.pop(word).failure
    assert failure is not None
    assert word[-3:] in failure
    assert len(failure) < 400
    assert all(result.text for result in results.values())
    assert server.stats().asked[prompt_id(word)] == 1


def test_a_model_or_address_that_the_server_does_not_have_ends_the_run(server: ModelServer) -> None:
    other = Endpoint(ModelName("other"), server.url)
    with pytest.raises(ModelUnavailable, match="MKAILIN_MODEL"):
        list(other.complete(prompts(3, "other")))
    with pytest.raises(ModelUnavailable, match="MKAILIN_ENDPOINT"):
        list(endpoint(server.url.removesuffix("/v1")).complete(prompts(3, "address")))
    with pytest.raises(ModelUnavailable, match="answered 307"):
        list(endpoint(server.url).complete([prompt("elsewhere")]))


def test_the_key_is_sent_and_shown_nowhere(
    server: ModelServer, tmp_path: Path, caplog: pytest.LogCaptureFixture, short_waits: None
) -> None:
    caplog.set_level(logging.DEBUG)
    with_key = Endpoint(ModelName("tiny"), server.url, api_key=partial(str, f"{KEY}\n"))
    results = by_key(with_key.complete([prompt("broken key"), prompt("refused400 key")]))
    shown = [repr(with_key), str(with_key.identity), *(str(result.failure) for result in results.values())]
    assert all("(the key)" in failure for failure in shown[2:])
    with pytest.raises(ModelUnavailable) as forbidden:
        list(with_key.complete([prompt("forbidden")]))
    with model_server(tmp_path, key="another") as strict:
        with pytest.raises(ModelUnavailable, match="MKAILIN_API_KEY") as refused:
            list(endpoint(strict.url, key=KEY).complete([prompt("key")]))
        with pytest.raises(ModelUnavailable, match="MKAILIN_API_KEY") as unchecked:
            endpoint(strict.url, key=KEY).check()
        endpoint(strict.url, key="another").check()
        keys = iter(["another", "another", KEY])
        rotated = Endpoint(ModelName("tiny"), strict.url, 1, lambda: next(keys))
        found = rotated.complete(prompts(3, "rotated"))
        assert [next(found).text, next(found).text] != [None, None]
        with pytest.raises(ModelUnavailable):
            next(found)
    with pytest.raises(ModelUnavailable, match="control character") as unfit:
        list(endpoint(server.url, key=f"{KEY}\n{KEY}").complete([prompt("key")]))
    shown += [str(raised.value) for raised in (forbidden, refused, unchecked, unfit)]
    assert KEY not in "".join([*shown, caplog.text])


def test_prompts_are_taken_only_as_there_is_room(server: ModelServer) -> None:
    taken = 0

    def many() -> Iterator[Prompt]:
        nonlocal taken
        for each in prompts(20_000, "room"):
            taken += 1
            yield each

    results = endpoint(server.url, 16).complete(many())
    for _ in range(50):
        next(results)
    before = -1
    while before < taken:
        before = taken
        time.sleep(0.5)
    # As many as wait or are in flight, and as many again that came over in one batch with the 50 read.
    room = 16 + 16 + 256
    assert 256 < taken <= 2 * room + 50
    for _ in range(2000):
        next(results)
    assert taken > 2050
    results.close()  # type: ignore[attr-defined]
    assert not is_running()


def test_closing_gives_up_what_is_in_flight(server: ModelServer) -> None:
    results = endpoint(server.url).complete(map(prompt, ["quick", *(f"slow {index}" for index in range(9))]))
    assert next(results).key == "quick"
    assert server.stats().in_flight == 9
    begun = time.monotonic()
    results.close()  # type: ignore[attr-defined]
    assert time.monotonic() - begun < 1
    assert not is_running()
    time.sleep(0.2)
    assert server.stats().in_flight == 0


def test_an_error_of_the_taker_or_the_giver_ends_the_run(server: ModelServer) -> None:
    def take() -> None:
        for _ in endpoint(server.url).complete(map(prompt, ["hasty", "slow taker"])):
            raise KeyError("taker")

    def give() -> Iterator[Prompt]:
        yield prompt("slow giver")
        raise KeyError("giver")

    with pytest.raises(KeyError, match="taker"):
        take()
    assert not is_running()
    with pytest.raises(KeyError, match="giver"):
        list(endpoint(server.url).complete(give()))
    assert not is_running()


def test_no_prompts_come_to_no_results_and_a_run_not_begun_to_no_thread(server: ModelServer) -> None:
    assert list(endpoint(server.url).complete([])) == []
    endpoint(server.url).complete(prompts(3, "never"))
    assert not is_running()


def test_a_check_names_the_models_that_there_are(tmp_path: Path) -> None:
    with model_server(tmp_path, models=("small", "large")) as server:
        with pytest.raises(ModelUnavailable, match=r"no model tiny; set MKAILIN_MODEL .* large, small"):
            endpoint(server.url).check()
        Endpoint(ModelName("small"), server.url).check()


def test_a_check_takes_an_endpoint_without_a_list_of_models(tmp_path: Path) -> None:
    with model_server(tmp_path, models=()) as server:
        endpoint(server.url).check()

        async def in_a_loop() -> None:
            endpoint(server.url).check()

        asyncio.run(in_a_loop())


def test_a_check_of_no_server_says_so_soon(tmp_path: Path) -> None:
    with model_server(tmp_path) as server:
        server.kill()
        begun = time.monotonic()
        with pytest.raises(ModelUnavailable, match="start the server, or mend MKAILIN_ENDPOINT") as raised:
            endpoint(server.url).check()
        assert time.monotonic() - begun < 8
        assert server.url in str(raised.value)


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:8000/v1", "ftp://host/v1", "http://", "http://host:port/v1", "file:///v1"]
)
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="URL of the endpoint"):
        endpoint(url)


def test_credentials_in_a_url_are_refused_and_not_shown() -> None:
    for url in (f"https://me:{KEY}@host/v1", f"https://host/v1?key={KEY}", f"http://me:{KEY}@host:port/v1"):
        with pytest.raises(ValueError, match="URL of the endpoint") as raised:
            endpoint(url)
        assert KEY not in str(raised.value)


def test_what_decides_the_texts_is_the_model_not_where_it_runs() -> None:
    here = Endpoint(ModelName.parse("org/model@abc"), "http://here/v1")
    there = Endpoint(ModelName.parse("org/model@abc"), "https://there/v1", 8)
    assert here.identity == there.identity == ("org/model", "abc", "")
    assert here.name == "org/model"
    with pytest.raises(ValueError, match="name of its own"):
        Endpoint(ModelName.parse("model+adapters/dpo"), "http://here/v1")
