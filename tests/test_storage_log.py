"""A log table: what is added costs what it adds, the last word of a key counts, and no crash shows."""

from pathlib import Path

import polars as pl
import pytest

from mkailin_resources import storage as storage_module
from mkailin_resources.storage import LogUpdate, Storage, StorageError


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Storage:
    monkeypatch.setattr(storage_module, "_SMALL_LOG", 10)
    return Storage(root=str(tmp_path))


def update(source: str, *, on: str = "", is_whole: bool = False, **values: str) -> LogUpdate:
    rows = pl.DataFrame({"pmid": [int(name[1:]) for name in values], "state": list(values.values())})
    sources, based_on = (dict.fromkeys(names.split(), "1") for names in (source, on))
    return LogUpdate(rows, "pmid", sources, based_on, is_whole)


def baseline(on: str = "") -> LogUpdate:
    return update("f1", on=on, is_whole=True, **{f"p{pmid}": "current" for pmid in range(20)})


def states(storage: Storage) -> dict[int, str]:
    table = storage.read_table("log")
    assert table is not None
    assert table["pmid"].is_unique().all()
    return dict(table.rows())


def files(storage: Storage) -> list[str]:
    return sorted(str(path.relative_to(storage.root)) for path in Path(storage.root).rglob("*.parquet"))


def test_an_addition_overrules_and_leaves_the_large_file_alone(storage: Storage) -> None:
    storage.update_log("log", baseline())
    before = storage.table_path("log", None).read_bytes()
    assert storage.update_log("log", update("f2", on="f1", p3="deleted", p90="current"))
    assert storage.update_log("log", update("f3", on="f1 f2", p3="current", p4="retracted"))
    assert storage.table_path("log", None).read_bytes() == before
    assert len(files(storage)) == 3
    changed = {3: "current", 4: "retracted", 90: "current"}
    assert states(storage) == {pmid: "current" for pmid in range(20)} | changed
    assert storage.log_sources("log") == {"f1": "1", "f2": "1", "f3": "1"}


def test_what_was_added_is_merged_when_it_comes_to_a_fifth(storage: Storage) -> None:
    storage.update_log("log", baseline())
    storage.update_log("log", update("f2", on="f1", p0="deleted", p1="deleted"))
    storage.update_log("log", update("f3", on="f1 f2", p0="current", p2="deleted", p3="deleted"))
    merged = pl.read_parquet(storage.table_path("log", None))
    assert dict(merged.rows()) == states(storage)
    assert [pmid for pmid, state in states(storage).items() if state == "deleted"] == [1, 2, 3]
    assert storage.log_sources("log") == {"f1": "1", "f2": "1", "f3": "1"}


def test_a_small_log_is_one_file(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage_module, "_SMALL_LOG", 1000)
    storage.update_log("log", baseline())
    storage.update_log("log", update("f2", on="f1", p3="deleted"))
    assert files(storage) == ["tables/log.parquet"]
    assert pl.read_parquet(storage.table_path("log", None)).row(3) == (3, "deleted")


def test_a_process_that_ends_between_merging_and_tidying_up_shows_nothing(storage: Storage) -> None:
    storage.update_log("log", baseline())
    storage.update_log("log", update("f2", on="f1", p0="deleted"))
    # Merged, and what was added before is still there: it must not overrule what came after.
    storage.update_log(
        "log", update("f3", on="f1 f2", p0="current", p1="deleted", p2="deleted", p5="deleted")
    )
    assert len(files(storage)) == 2
    assert states(storage)[0] == "current"


def test_a_whole_update_forgets_what_was_there(storage: Storage) -> None:
    storage.update_log("log", baseline())
    storage.update_log("log", update("f2", on="f1", p0="deleted"))
    storage.update_log("log", update("f9", on="f1 f2", is_whole=True, p7="current"))
    assert states(storage) == {7: "current"}
    assert storage.log_sources("log") == {"f9": "1"}


def test_the_same_again_changes_nothing(storage: Storage) -> None:
    storage.update_log("log", baseline())
    at = storage.published_at("log", None)
    assert not storage.update_log("log", baseline(on="f1"))
    assert not storage.update_log("log", update("", on="f1"))
    assert storage.published_at("log", None) == at
    assert storage.update_log("log", update("f2", on="f1", p0="deleted"))
    later = storage.published_at("log", None)
    assert at is not None
    assert later is not None
    assert later > at


def test_a_source_that_is_taken_away_takes_its_addition_with_it(storage: Storage) -> None:
    storage.update_log("log", baseline())
    storage.update_log("log", update("f2", on="f1", p0="deleted"))
    assert storage.update_log("log", baseline(on="f1 f2"))
    assert set(states(storage).values()) == {"current"}
    assert storage.log_sources("log") == {"f1": "1"}


@pytest.mark.parametrize("is_small", [False, True])
def test_of_two_runs_at_once_the_one_that_saw_more_has_the_last_word(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, is_small: bool
) -> None:
    monkeypatch.setattr(storage_module, "_SMALL_LOG", 1000 if is_small else 10)
    saw_less = update("f2", on="f1", p1="deleted")
    saw_more = update("f2 f3", on="f1", p1="current")
    for first, second in ((saw_less, saw_more), (saw_more, saw_less)):
        storage.update_log("log", baseline(on=" ".join(storage.log_sources("log"))))
        storage.update_log("log", first)
        storage.update_log("log", second)
        assert states(storage)[1] == "current"
        assert set(storage.log_sources("log")) == {"f1", "f2", "f3"}


def test_what_another_run_published_and_this_one_did_not_see_is_not_lost(storage: Storage) -> None:
    storage.update_log("log", baseline())
    storage.update_log("log", update("f2", on="f1", p1="deleted"))
    with pytest.raises(StorageError, match="another run has published"):
        storage.update_log("log", update("f3", on="f1", p2="deleted"))
    with pytest.raises(StorageError, match="another run has published"):
        storage.update_log("log", update("f1 f3", on="f1", is_whole=True, p2="deleted"))
    assert states(storage)[1] == "deleted"
