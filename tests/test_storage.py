"""What is published is whole: through real Dagster runs, killed processes, full disks and two writers."""

import io
import os
import resource
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import dataframely as dy
import polars as pl
import pytest

from mkailin_assets.tables import table
from mkailin_resources.storage import ParquetTables, Storage, StorageError

BRANCHES = dg.StaticPartitionsDefinition(["A01", "B01", "C04", "F03"])
SMALL = pl.DataFrame({"branch": ["C04"], "rows": [1]})


class BranchRows(dy.Schema):
    branch = dy.String()
    rows = dy.Int64()


@dg.asset(**table(BranchRows), partitions_def=BRANCHES)
def source(context: dg.AssetExecutionContext) -> dg.Output[pl.DataFrame]:
    frames: Any = {key: pl.DataFrame({"branch": [key], "rows": [1]}) for key in context.partition_keys}
    return dg.Output(frames if len(frames) > 1 else frames[context.partition_keys[0]])


@dg.asset(partitions_def=BRANCHES)
def doubled(source: pl.DataFrame) -> pl.DataFrame:
    return source.with_columns(pl.col("rows") * 2)


@dg.asset(ins={"source": dg.AssetIn(partition_mapping=dg.AllPartitionMapping())})
def united(source: dict[str, pl.LazyFrame]) -> pl.DataFrame:
    return pl.concat(source.values()).collect()


@dg.asset_check(asset=doubled, partitions_def=BRANCHES)
def doubled_is_even(doubled: pl.DataFrame) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        passed=bool((doubled["rows"] % 2 == 0).all()), metadata={"rows": doubled.height}
    )


@dg.asset_check(asset=united)
def united_names_each_branch_once(united: pl.LazyFrame) -> dg.AssetCheckResult:
    rows = united.collect()
    return dg.AssetCheckResult(passed=rows["branch"].is_unique().all(), metadata={"rows": rows.height})


ASSETS: list[Any] = [source, doubled, united, doubled_is_even, united_names_each_branch_once]


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(root=str(tmp_path / "kept"))


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as made:
        yield made


def run(
    storage: Storage,
    names: list[str],
    instance: dg.DagsterInstance | None = None,
    assets: list[Any] = ASSETS,
    **how: Any,
) -> dg.ExecuteInProcessResult:
    resources = {"io_manager": ParquetTables(storage=storage)}
    return dg.materialize(assets, selection=names, instance=instance, resources=resources, **how)


def span(first: str, last: str) -> dict[str, str]:
    return {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}


def plain(result: dg.ExecuteInProcessResult, name: str) -> dict[str, Any]:
    metadata = result.asset_materializations_for_node(name)[0].metadata
    return {key: value.value for key, value in metadata.items()}


def test_each_partition_is_one_parquet_file_in_its_place(storage: Storage) -> None:
    result = run(storage, ["source"], partition_key="C04")
    path = Path(storage.root) / "tables" / "source" / "C04.parquet"
    assert pl.read_parquet(path).equals(SMALL)
    assert plain(result, "source") == {
        "dagster/row_count": 1,
        "dagster/uri": path.as_uri(),
        "parquet_bytes": path.stat().st_size,
        "unchanged": False,
        "partitions_written": 1,
        "partitions_unchanged": 0,
    }


def test_a_chain_of_assets_and_their_checks_reads_what_was_published(
    storage: Storage, instance: dg.DagsterInstance
) -> None:
    first = run(storage, ["source", "doubled"], instance, partition_key="C04")
    second = run(storage, ["united"], instance)
    evaluations = [*first.get_asset_check_evaluations(), *second.get_asset_check_evaluations()]
    assert [(e.check_name, e.passed, e.metadata["rows"].value) for e in evaluations] == [
        ("doubled_is_even", True, 1),
        ("united_names_each_branch_once", True, 1),
    ]
    assert pl.read_parquet(Path(storage.root) / "tables" / "united.parquet").equals(SMALL)


def test_a_single_run_backfill_writes_a_file_for_each_partition(storage: Storage) -> None:
    run(storage, ["source"], partition_key="B01")
    result = run(storage, ["source"], tags=span("A01", "C04"))
    assert sorted(p.stem for p in (Path(storage.root) / "tables" / "source").iterdir()) == [
        "A01",
        "B01",
        "C04",
    ]
    metadata = plain(result, "source")
    assert (metadata["dagster/row_count"], metadata["unchanged"]) == (3, False)
    assert (metadata["partitions_written"], metadata["partitions_unchanged"]) == (2, 1)


def test_a_backfill_that_forgets_a_partition_is_refused(storage: Storage) -> None:
    @dg.asset(partitions_def=BRANCHES)
    def forgetful() -> dict[str, pl.DataFrame]:
        return {"A01": SMALL, "Z99": SMALL}

    with pytest.raises(StorageError, match=r"publishing forgetful, partitions A01, B01: .*Z99"):
        run(storage, ["forgetful"], assets=[forgetful], tags=span("A01", "B01"))
    assert storage.published_at("forgetful", "A01") is None


def test_all_existing_partitions_load_and_the_missing_are_named(
    storage: Storage, capfd: pytest.CaptureFixture[str]
) -> None:
    for key in ("F03", "B01"):
        storage.write_table(pl.DataFrame({"branch": [key], "rows": [1]}), "source", key)
    result = run(storage, ["united"])
    assert result.output_for_node("united")["branch"].to_list() == ["B01", "F03"]
    assert "2 of 4 partitions loaded; not materialized yet and left out: A01, C04" in capfd.readouterr().err


def test_partitions_come_in_the_order_of_their_keys(storage: Storage) -> None:
    keys = [f"pubmed26n{number:04}" for number in range(1, 60)]

    @dg.asset(partitions_def=dg.StaticPartitionsDefinition(keys))
    def files() -> None: ...

    @dg.asset(ins={"files": dg.AssetIn(partition_mapping=dg.AllPartitionMapping())})
    def names(files: dict[str, pl.LazyFrame]) -> pl.DataFrame:
        return pl.DataFrame({"key": list(files)})

    for key in keys:
        storage.write_table(SMALL, "files", key)
    result = run(storage, ["names"], assets=[files, names])
    assert result.output_for_node("names")["key"].to_list() == keys


def test_several_partitions_can_be_loaded_as_frames(storage: Storage) -> None:
    @dg.asset(ins={"source": dg.AssetIn(partition_mapping=dg.AllPartitionMapping())})
    def heights(source: dict[str, pl.DataFrame]) -> pl.DataFrame:
        return pl.DataFrame({"rows": [frame.height for frame in source.values()]})

    storage.write_table(SMALL, "source", "C04")
    result = run(storage, ["heights"], assets=[source, heights])
    assert result.output_for_node("heights")["rows"].to_list() == [1]


@pytest.mark.parametrize(
    ("name", "how", "message"),
    [
        ("doubled", {"partition_key": "C04"}, "materialize source, partition C04 first"),
        (
            "united",
            {},
            "none of its 4 partitions is there; materialize at least one partition of source first",
        ),
        ("united_copy", {}, "materialize united first"),
    ],
)
def test_a_missing_table_says_what_to_materialize_first(
    storage: Storage, name: str, how: dict[str, Any], message: str
) -> None:
    @dg.asset
    def united_copy(united: pl.LazyFrame) -> pl.DataFrame:
        return united.collect()

    with pytest.raises(StorageError) as failed:
        run(storage, [name], assets=[*ASSETS, united_copy], **how)
    assert message in str(failed.value)


def test_an_input_of_several_partitions_annotated_as_one_table_is_explained(storage: Storage) -> None:
    run(storage, ["source"], tags=span("A01", "B01"))
    with pytest.raises(StorageError, match=r"loading source for input 'source', 2 partitions.*dict\[str"):
        run(storage, ["doubled"], tags=span("A01", "B01"))


@pytest.mark.parametrize(("reader", "how"), [("doubled", {"partition_key": "C04"}), ("united", {})])
def test_a_damaged_table_is_named(storage: Storage, reader: str, how: dict[str, Any]) -> None:
    storage.write_table(SMALL, "source", "C04")
    path = Path(storage.root) / "tables" / "source" / "C04.parquet"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(StorageError, match=f"{path}.*damaged: materialize it again"):
        run(storage, [reader], **how)


def test_a_table_with_the_same_content_keeps_its_time(storage: Storage) -> None:
    run(storage, ["source"], partition_key="C04")
    path = Path(storage.root) / "tables" / "source" / "C04.parquet"
    os.utime(path, (1000, 1000))
    again = run(storage, ["source"], partition_key="C04")
    assert storage.published_at("source", "C04") == 1000
    assert plain(again, "source")["unchanged"] is True
    assert storage.write_table(SMALL.with_columns(rows=pl.lit(2)), "source", "C04")
    assert storage.published_at("source", "C04") == pytest.approx(time.time(), abs=5)


def test_tables_of_several_chunks_are_the_same_bytes_as_of_one(storage: Storage) -> None:
    big = pl.DataFrame({"x": range(300_000)})
    storage.write_table(big, "numbers")
    assert not storage.write_table(pl.concat([big[:7], big[7:]], rechunk=False), "numbers")


WRITER = """
import sys
import polars as pl
from mkailin_resources.storage import Storage

storage, rows, start = Storage(root=sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
frame = pl.select(x=pl.int_range(start, start + rows).hash(seed=start))
print("ready", flush=True)
sys.stdin.readline()
storage.write_table(frame, "numbers", "C04")
"""


def writer(storage: Storage, rows: int, start: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, storage.root, str(rows), str(start)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    return child


def go(child: subprocess.Popen[str]) -> None:
    assert child.stdin is not None
    child.stdin.write("go\n")
    child.stdin.flush()


def test_a_killed_write_leaves_the_previous_partition(storage: Storage) -> None:
    before = pl.DataFrame({"x": [1, 2, 3]})
    storage.write_table(before, "numbers", "C04")
    folder = Path(storage.root) / "tables" / "numbers"
    caught: list[int] = []
    for reach in (0, 4_000_000, 12_000_000):
        child = writer(storage, rows=4_000_000, start=0)
        go(child)
        left: list[int] = []
        while child.poll() is None and not any(size > reach for size in left):
            left = [path.stat().st_size for path in folder.glob(".C04.parquet.*.tmp") if path.exists()]
        child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL, "the write ended before it could be killed"
        caught += [path.stat().st_size for path in folder.glob(".C04.parquet.*.tmp")]
        assert [path.name for path in folder.glob("*.parquet")] == ["C04.parquet"]
        assert pl.read_parquet(folder / "C04.parquet").equals(before)
        for path in folder.glob(".*.tmp"):
            path.unlink()
    assert len(caught) == 3
    assert max(caught) > 12_000_000


def test_what_killed_writers_left_is_removed_after_a_day(storage: Storage) -> None:
    storage.write_table(SMALL, "source", "C04")
    folder = Path(storage.root) / "tables" / "source"
    old, fresh, other = (
        folder / ".C04.parquet.1.tmp",
        folder / ".C04.parquet.2.tmp",
        folder / ".A01.parquet.1.tmp",
    )
    for path in (old, fresh, other):
        path.touch()
    os.utime(old, (1000, 1000))
    storage.write_table(SMALL, "source", "C04")
    assert sorted(folder.glob(".*.tmp")) == [other, fresh]


def test_two_writers_of_one_partition_both_finish_with_one_whole_result(storage: Storage) -> None:
    children = [writer(storage, rows=1_000_000, start=start) for start in (0, 7)]
    for child in children:
        go(child)
    assert [child.wait() for child in children] == [0, 0]
    kept = storage.read_table("numbers", "C04")
    assert kept is not None
    either = [pl.select(x=pl.int_range(start, start + 1_000_000).hash(seed=start)) for start in (0, 7)]
    assert any(kept.equals(frame) for frame in either)
    assert [path.name for path in (Path(storage.root) / "tables" / "numbers").iterdir()] == ["C04.parquet"]


def test_a_disk_without_room_fails_clearly_and_keeps_the_old_table(storage: Storage) -> None:
    storage.write_table(SMALL, "numbers", "C04")
    path = storage.table_path("numbers", "C04")
    big = pl.select(x=pl.int_range(0, 1_000_000).hash())
    message = rf"publishing {path}: .*File too large.*; what was there before stays"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))  # the kernel refuses to write on after 1 MiB
    try:
        with pytest.raises(StorageError, match=message):
            storage.write_table(big, "numbers", "C04")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    kept = storage.read_table("numbers", "C04")
    assert kept is not None
    assert kept.equals(SMALL)
    assert [left.name for left in path.parent.iterdir()] == ["C04.parquet"]


@pytest.fixture(params=["folder", "memory"])
def any_storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "memory":
        return Storage(root=f"memory://{uuid.uuid4().hex}/kept")
    return Storage(root=str(tmp_path))


def test_tables_are_kept_on_any_fsspec_root(any_storage: Storage) -> None:
    run(any_storage, ["source"], partition_key="C04")
    run(any_storage, ["doubled"], partition_key="C04", assets=[source, doubled])
    again = run(any_storage, ["source"], partition_key="C04")
    united_rows = run(any_storage, ["united"]).output_for_node("united")
    assert plain(again, "source")["unchanged"] is True
    assert united_rows.equals(SMALL)
    kept = any_storage.read_table("doubled", "C04")
    assert kept is not None
    assert kept["rows"].to_list() == [2]
    assert any_storage.published_at("doubled", "C04") == pytest.approx(time.time(), abs=5)
    assert any_storage.published_at("doubled", "A01") is None
    assert any_storage.read_table("doubled", "A01") is None


def test_a_failed_write_leaves_nothing_visible_and_the_old_content(any_storage: Storage) -> None:
    def fails(file: Any) -> None:
        file.write(b"half of it")
        raise ValueError("cut off")

    target = any_storage.path("raw", "pubmed", "pubmed26n0001.xml.gz")
    with pytest.raises(ValueError, match="cut off"):
        any_storage.publish_file(target, fails)
    assert not target.exists()
    any_storage.publish_file(target, lambda file: file.write(b"whole"))
    with pytest.raises(ValueError, match="cut off"):
        any_storage.publish_file(target, fails)
    with any_storage.open(str(target)) as file:
        assert io.BufferedReader(file).read() == b"whole"  # type: ignore[type-var]


def test_a_file_that_is_no_longer_kept_is_named(any_storage: Storage) -> None:
    uri = str(any_storage.path("raw", "gone.gz"))
    with pytest.raises(StorageError, match=f"{uri}.*materialize"):
        any_storage.open(uri)


def test_a_published_folder_is_whole_and_never_changes(
    any_storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    made = tmp_path / "made"
    (made / "tokenizer").mkdir(parents=True)
    (made / "training.json").write_text("first")
    (made / "tokenizer" / "vocabulary.txt").write_text("words")
    uri = any_storage.publish_folder(made, "checkpoints", "abc")
    (made / "training.json").write_text("second")
    assert any_storage.publish_folder(made, "checkpoints", "abc") == uri
    for _ in range(2):
        folder = any_storage.local_folder(uri)
        assert {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()} == {
            "training.json": "first",
            "tokenizer/vocabulary.txt": "words",
        }


def test_a_folder_whose_upload_was_cut_off_is_not_used(tmp_path: Path) -> None:
    remote = Storage(root=f"memory://{uuid.uuid4().hex}")
    half = remote.path("checkpoints", "abc")
    half.fs.pipe_file((half / "adapter.safetensors").path, b"half")
    with pytest.raises(StorageError, match="materialize the asset that made it again"):
        remote.local_folder(str(half))
    with pytest.raises(StorageError, match="materialize its asset again"):
        remote.local_folder(str(tmp_path / "gone"))


def test_a_root_relative_to_the_working_folder_gives_absolute_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert str(Storage(root="data/demo").table_path("source", "C04")) == str(
        tmp_path / "data/demo/tables/source/C04.parquet"
    )
    assert str(Storage(root=tmp_path.as_uri()).path("raw")) == str(tmp_path / "raw")
