"""The generation store: what was paid for is found again, whoever dies or writes beside it."""

import logging
import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mkailin_resources.generation_store import (
    GenerationStore,
    GenerationStoreUnavailable,
    Pruned,
    Reuse,
    StoredText,
)
from mkailin_resources.storage import Storage

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)

# Writes answers from FIRST on until it is killed or has written COUNT; says each that `add` has taken.
WRITING = """
import sys
from datetime import UTC, datetime
from mkailin_resources.generation_store import GenerationStore, StoredText
from mkailin_resources.storage import Storage
root, first, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
with GenerationStore(Storage(root=root)).writer() as writer:
    sys.stdin.readline()
    for number in range(first, first + count):
        writer.add(StoredText(f"{number:032x}", 0, "m", "v1", f"text {number}", False, 10, 2))
        print(number, flush=True)
"""
# Says that it is ready, looks for answers 0 to COUNT when a line comes; says how many there are.
FINDING = """
import sys
from mkailin_resources.generation_store import GenerationStore
from mkailin_resources.storage import Storage
store = GenerationStore(Storage(root=sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
print(len(store.find(f"{number:032x}" for number in range(int(sys.argv[2])))))
"""
# Adds until a journal of 64 KiB is all that the disk holds; then there is room again, and it goes on.
ON_A_FULL_DISK = """
import resource, signal, sys
from mkailin_resources.generation_store import GenerationStore, StoredText
from mkailin_resources.storage import Storage
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
refused = 0
with GenerationStore(Storage(root=sys.argv[1])).writer() as writer:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, resource.RLIM_INFINITY))
    for number in range(100):
        try:
            writer.add(StoredText(f"{number:032x}", 0, "m", "v1", "x" * 1_000, False, 10, 2))
        except OSError as error:
            assert "journal" in str(error), error
            refused += 1
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    writer.add(StoredText(f"{100:032x}", 0, "m", "v1", "after", False, 10, 2))
print(refused)
"""


def fingerprint(number: int) -> str:
    return f"{number:032x}"


def answer(number: int, text: str = "yes", attempt: int = 0, at: datetime = NOON) -> StoredText:
    return StoredText(fingerprint(number), attempt, "model@1", "v1", text, False, 100, 7, at)


def start(script: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin
    process.stdin.write("\n")
    process.stdin.flush()


def write_and_kill(root: object, count: int, first: int = 0) -> int:
    """How many answers a process had added when it was killed: `count` or a few more."""
    writing = start(WRITING, root, first, 1_000_000)
    go(writing)
    assert writing.stdout
    taken = [writing.stdout.readline() for _ in range(count)]
    writing.kill()
    taken += [line for line in writing.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
    assert writing.wait() == -signal.SIGKILL
    return len(taken)


def journals(store_root: Path) -> list[Path]:
    return sorted((store_root / ".scratch" / "generations").glob("*.journal"))


def kept(store: GenerationStore, numbers: range) -> int:
    return len(store.find(map(fingerprint, numbers)))


def rows(store: GenerationStore) -> int:
    return int(store.usage()["rows"].sum())


@pytest.fixture
def store(tmp_path: Path) -> GenerationStore:
    return GenerationStore(Storage(root=str(tmp_path)))


def test_every_kind_of_text_comes_back_as_it_was(store: GenerationStore) -> None:
    texts = [
        "",
        "Größe 5 µm → 血圧 🩺 \u2028 \u0085 e\u0301",
        "".join(map(chr, range(32))) + "\x7f\x00\n",
        "\r\n\r\n",
        '{"long_answer": "a \\"quoted\\" one"}',
        "wörter " * 4_300,
    ]
    added = [answer(number, text, attempt=number % 3) for number, text in enumerate(texts)]
    added.append(StoredText(fingerprint(99), 300, "höher", "v2", "cut", True, 2**31 - 1, 0, NOON))
    assert len(texts[-1]) > 30_000
    with store.writer() as writer:
        for row in added:
            writer.add(row)
    found = store.find(row.fingerprint for row in added)
    assert found == {(row.fingerprint, row.attempt): row for row in added}


def test_a_text_that_no_file_can_hold_is_kept_all_the_same(store: GenerationStore) -> None:
    with store.writer() as writer:
        writer.add(answer(1, "half of \ud83e a sign"))
    assert store.find([fingerprint(1)])[fingerprint(1), 0].text == "half of \ufffd a sign"


def test_what_was_never_asked_is_not_found(store: GenerationStore) -> None:
    with store.writer() as writer:
        writer.add(answer(1))
    assert store.find([fingerprint(2)]) == {}
    assert store.find([]) == {}


def test_an_empty_store_finds_nothing_and_makes_nothing(store: GenerationStore, tmp_path: Path) -> None:
    with store.writer():
        pass
    assert store.find([fingerprint(1)]) == {}
    assert store.usage().height == store.ledger().height == 0
    assert store.prune(None, NOON) == Pruned(0, 0)
    store.tidy()
    assert [path for path in tmp_path.rglob("*") if path.name != ".scratch"] == []


@pytest.mark.parametrize(
    "row",
    [
        StoredText("abc", 0, "m", "v", "t", False, 1, 1, NOON),
        StoredText("G" * 32, 0, "m", "v", "t", False, 1, 1, NOON),
        StoredText("0" * 32, -1, "m", "v", "t", False, 1, 1, NOON),
        StoredText("0" * 32, 40_000, "m", "v", "t", False, 1, 1, NOON),
        StoredText("0" * 32, 0, "m", "v", "t", False, -1, 1, NOON),
        StoredText("0" * 32, 0, "m", "v", "t", False, 1, 2**31, NOON),
        StoredText("0" * 32, 0, "m", "v", "t", False, 1, 1, NOON.replace(tzinfo=None)),
    ],
)
def test_a_row_that_does_not_fit_is_refused_and_spoils_no_other(
    store: GenerationStore, row: StoredText
) -> None:
    with store.writer() as writer:
        writer.add(answer(1))
        with pytest.raises(ValueError, match=r"fingerprint|answer|time"):
            writer.add(row)
    assert rows(store) == 1


@pytest.mark.parametrize("count", [1, 1_500, 6_500])
def test_a_killed_run_loses_no_answer_that_it_had_added(tmp_path: Path, count: int) -> None:
    taken = write_and_kill(tmp_path, count)
    assert journals(tmp_path)
    store = GenerationStore(Storage(root=str(tmp_path)))
    assert kept(store, range(taken)) == taken
    assert rows(store) - taken in (0, 1)  # one may have been taken and not yet said
    assert journals(tmp_path) == []


def test_a_line_cut_off_by_the_kill_is_left_out_without_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    taken = write_and_kill(tmp_path, 10)
    (journal,) = journals(tmp_path)
    with journal.open("r+b") as file:
        lines = file.read().splitlines(keepends=True)
        file.truncate(sum(map(len, lines)) - 20)
    store = GenerationStore(Storage(root=str(tmp_path)))
    assert rows(store) == len(lines) - 1 >= taken - 1
    assert not caplog.records
    assert not list(journal.parent.glob("*.damaged"))


def test_a_damaged_line_is_reported_and_set_aside_and_the_others_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_and_kill(tmp_path, 10)
    (journal,) = journals(tmp_path)
    lines = journal.read_bytes().splitlines(keepends=True)
    lines[3] = lines[3].replace(b"text 3", b"text 8")
    lines[5] = b"\x00" * 30 + b"\n"
    journal.write_bytes(b"".join(lines))
    store = GenerationStore(Storage(root=str(tmp_path)))
    with caplog.at_level(logging.WARNING):
        found = store.find(map(fingerprint, range(10)))
    assert {int(key, 16) for key, _ in found} == {0, 1, 2, 4, 6, 7, 8, 9}
    assert "line 4" in caplog.text
    assert "line 6" in caplog.text
    assert journal.with_suffix(".damaged").read_bytes() == lines[3] + lines[5].rstrip(b"\n")


def test_two_processes_fold_a_dead_journal_once(tmp_path: Path) -> None:
    taken = write_and_kill(tmp_path, 1_900)
    finding = [start(FINDING, tmp_path, taken) for _ in range(2)]
    for process in finding:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    for process in finding:
        go(process)
    assert [int(process.communicate()[0]) for process in finding] == [taken, taken]
    assert rows(GenerationStore(Storage(root=str(tmp_path)))) - taken in (0, 1)


def test_a_fold_killed_before_its_journal_was_removed_adds_nothing_twice(
    store: GenerationStore, tmp_path: Path
) -> None:
    write_and_kill(tmp_path, 500)
    (journal,) = journals(tmp_path)
    copy = tmp_path / "copy"
    shutil.copy(journal, copy)
    before = rows(store)
    shutil.copy(copy, journal)
    assert rows(store) == before >= 500
    assert journals(tmp_path) == []


def test_the_journal_of_a_living_run_is_left_to_it(store: GenerationStore, tmp_path: Path) -> None:
    with store.writer() as writer:
        writer.add(answer(1))
        assert store.find([fingerprint(1)]) == {}
        assert len(journals(tmp_path)) == 1
        writer.add(answer(2))
    assert kept(store, range(3)) == 2
    assert journals(tmp_path) == []


def test_runs_that_write_at_once_all_keep_their_answers(tmp_path: Path) -> None:
    each = 2_100
    writing = [start(WRITING, tmp_path, number * each, each) for number in range(3)]
    for process in writing:
        go(process)
    store = GenerationStore(Storage(root=str(tmp_path)))
    while any(process.poll() is None for process in writing):
        store.tidy()
    for process in writing:
        process.communicate()
        assert process.returncode == 0
    assert kept(store, range(3 * each)) == rows(store) == 3 * each


def test_many_small_batches_are_tidied_and_indexed(
    store: GenerationStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mkailin_resources.generation_store._ROWS_PER_JOURNAL", 10)
    monkeypatch.setattr("mkailin_resources.generation_store._JOURNALS_PER_FOLD", 1)
    with store.writer() as writer:
        for number in range(250):
            writer.add(answer(number))
    import lancedb

    table = lancedb.connect(str(store._folder)).open_table("texts")
    assert table.stats()["fragment_stats"]["num_fragments"] == 1  # type: ignore[index]  # a dict in truth
    assert [(index.columns, index.num_unindexed_rows) for index in table.list_indices()] == [
        (["fingerprint"], 0)
    ]
    assert kept(store, range(250)) == 250


def test_runs_that_tidy_and_prune_at_once_get_in_nobodys_way(
    store: GenerationStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mkailin_resources.generation_store._ROWS_PER_JOURNAL", 5)
    monkeypatch.setattr("mkailin_resources.generation_store._JOURNALS_PER_FOLD", 1)
    later = NOON + timedelta(days=1)

    def tidy() -> None:
        for _ in range(15):
            store.tidy()

    def prune() -> None:
        for _ in range(10):
            store.prune(lambda key: int(key, 16) % 2 == 0, later)

    with ThreadPoolExecutor(4) as threads, store.writer() as writer:
        writer.add(answer(0))
        beside = [threads.submit(work) for work in (tidy, tidy, prune, prune)]
        for number in range(1, 400):
            writer.add(answer(number))
    for work in beside:
        work.result()
    store.prune(lambda key: int(key, 16) % 2 == 0, later)
    assert kept(store, range(400)) == rows(store) == 200


def test_of_two_answers_to_one_request_the_earliest_counts(store: GenerationStore) -> None:
    for text, minutes in (("second", 5), ("first", 0), ("third", 9)):
        with store.writer() as writer:
            writer.add(answer(1, text, at=NOON + timedelta(minutes=minutes)))
    assert store.find([fingerprint(1)]) == {(fingerprint(1), 0): answer(1, "first")}
    assert rows(store) == 3


def test_pruning_keeps_what_is_named_with_all_its_attempts_and_what_is_young(store: GenerationStore) -> None:
    with store.writer() as writer:
        for number in range(6):
            for attempt in (0, 1):
                writer.add(answer(number, "déjà", attempt))
        writer.add(answer(7, at=NOON + timedelta(microseconds=1)))
    later = NOON + timedelta(microseconds=1)
    assert store.prune({fingerprint(1), fingerprint(2), fingerprint(77)}, later) == Pruned(8, 8 * 6)
    assert {(int(key, 16), attempt) for key, attempt in store.find(map(fingerprint, range(9)))} == {
        (1, 0), (1, 1), (2, 0), (2, 1), (7, 0)
    }  # fmt: skip
    assert store.prune(lambda key: key == fingerprint(2), later).rows == 2
    assert store.prune(None, NOON).rows == 0
    assert store.prune(None, later).rows == 2
    assert kept(store, range(9)) == 1


def test_usage_adds_up_by_model_and_prompt(store: GenerationStore) -> None:
    with store.writer() as writer:
        writer.add(answer(1, "é"))
        writer.add(answer(2, "abc", at=NOON + timedelta(hours=1)))
        writer.add(StoredText(fingerprint(3), 0, "model@1", "v2", "x", True, 5, 6, NOON))
    later = NOON + timedelta(hours=1)
    assert store.usage().rows() == [
        ("model@1", "v1", 2, 200, 14, 5, NOON, later),
        ("model@1", "v2", 1, 5, 6, 1, NOON, NOON),
    ]


def test_the_ledger_says_what_each_run_reused_and_paid(store: GenerationStore) -> None:
    first = Reuse("answers", "C04", "run-1", "m", 10, 0, 9, 1, 900, 90, 0, 0, 12.5, NOON)
    second = Reuse("answers", None, "run-2", "m", 10, 9, 1, 0, 100, 10, 900, 90, 0.5, NOON + timedelta(1))
    store.record([second])
    store.record([first])
    store.record([])
    assert [Reuse(**row) for row in store.ledger().to_dicts()] == [first, second]


def test_a_full_disk_is_said_and_spoils_no_other_answer(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ON_A_FULL_DISK, str(tmp_path)], check=True, capture_output=True, text=True
    )
    refused = int(done.stdout)
    assert refused > 0
    store = GenerationStore(Storage(root=str(tmp_path)))
    assert kept(store, range(101)) == rows(store) == 101 - refused
    assert (fingerprint(100), 0) in store.find([fingerprint(100)])


def test_answers_stay_in_the_journal_while_the_table_cannot_be_written(
    store: GenerationStore, tmp_path: Path
) -> None:
    (tmp_path / "generations").write_text("a file is in the way")
    with pytest.raises(GenerationStoreUnavailable, match="journal"), store.writer() as writer:
        writer.add(answer(1))
    (tmp_path / "generations").unlink()
    assert kept(store, range(2)) == 1


def test_a_store_on_s3_keeps_finds_folds_and_prunes(bucket: str) -> None:
    store = GenerationStore(Storage(root=bucket))
    assert store.find([fingerprint(1)]) == {}
    assert store.usage().height == store.ledger().height == 0
    taken = write_and_kill(bucket, 2_500)
    assert kept(store, range(taken)) == taken
    second = [start(WRITING, bucket, 100_000 + 2_100 * number, 2_100) for number in range(2)]
    for process in second:
        go(process)
    for process in second:
        process.communicate()
        assert process.returncode == 0
    assert kept(store, range(100_000, 104_200)) == 4_200
    store.tidy()
    assert store.prune(set(map(fingerprint, range(10))), datetime.now(UTC)).rows >= taken + 4_200 - 10
    assert kept(store, range(taken)) == 10
    store.record([Reuse("answers", "C04", "run-1", "m", 10, 0, 9, 1, 900, 90, 0, 0, 12.5, NOON)])
    assert store.ledger().height == 1
    scratch = Path(os.environ["XDG_CACHE_HOME"]).rglob("*.journal")
    assert list(scratch) == []
