"""The folder of a release: what Hugging Face loads from it, and what never changes."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest
from small_release import PMIDS, example, small_facts, small_release, small_reports, training_examples

from mkailin_assets.corpus.tables import SPLITS
from mkailin_assets.release.facts import Form
from mkailin_assets.release.forms import configs_of, instruction_rows, pretraining_rows, schema_of
from mkailin_assets.release.layout import ROWS_A_GROUP, SUMS, write_reports, write_rows, write_sums

LOAD = """
import json, sys, datasets
for release in sys.argv[1:]:
    for config in datasets.get_dataset_config_names(release):
        for split, rows in datasets.load_dataset(release, config).items():
            print(json.dumps([release, config, split, rows.to_list()]))
    print(json.dumps([release, None, None, list(datasets.load_dataset(release)["train"].features)]))
"""
Loaded = dict[tuple[str | None, str | None], list[Any]]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Loaded]:
    """What `datasets.load_dataset` reads of three releases: rows by config and split, without a network."""
    folder = tmp_path_factory.mktemp("loaded")
    rows = training_examples()
    small_release(folder / "full", rows)
    small_release(folder / "pmids", rows, small_facts(rows, form="pmids"))
    small_release(folder / "untested", rows.filter(pl.col("split") != "test"))
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(folder / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", LOAD, "full", "pmids", "untested"],
        cwd=folder,
        env=os.environ | offline,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Loaded] = {}
    for release, config, split, read in map(json.loads, done.stdout.splitlines()):
        found.setdefault(release, {})[config, split] = read
    return found


def many(rows: int) -> pl.DataFrame:
    """So many training examples, and one of each other split."""
    one = training_examples().filter(split="train").head(1)
    ids = pl.Series("example_id", [f"{at:032x}" for at in range(rows)])
    train = pl.concat([one] * rows).with_columns(ids, pmid=pl.int_range(1, rows + 1, dtype=pl.Int64))
    return pl.concat([train, training_examples(example(23), example(5))])


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.mark.parametrize("form", ["full", "pmids"])
def test_datasets_loads_every_config_and_split_offline(loaded: dict[str, Loaded], form: Form) -> None:
    found, rows = dict(loaded[form]), training_examples()
    for split in SPLITS:
        examples = rows.filter(split=split)
        assert found.pop(("instruction", split)) == instruction_rows(examples, form).to_dicts()
        if form == "full":
            assert found.pop(("pretraining", split)) == pretraining_rows(examples).to_dicts()
    assert found == {(None, None): schema_of("instruction", form).names()}, "instruction is the default"


def test_a_release_without_test_rows_loads_as_the_splits_it_has(loaded: dict[str, Loaded]) -> None:
    counts = {place: len(rows) for place, rows in loaded["untested"].items() if place != (None, None)}
    expected = {"train": 5, "validation": 2}
    assert counts == {(config, split): expected[split] for config in configs_of("full") for split in expected}


@pytest.mark.parametrize("form", ["full", "pmids"])
def test_the_same_rows_are_the_same_bytes_however_they_came(tmp_path: Path, form: Form) -> None:
    rows = many(2 * ROWS_A_GROUP + 7)
    sizes = {"one": rows.height, "many": 300, "few": 1900}
    for name, size in sizes.items():
        assert write_rows(rows.iter_slices(size), tmp_path / name, form) == rows.height
    one = contents(tmp_path / "one")
    assert len(one) == len(SPLITS) * len(configs_of(form))
    assert contents(tmp_path / "many") == one
    assert contents(tmp_path / "few") == one


def test_a_large_split_is_cut_into_files_named_by_their_number(tmp_path: Path) -> None:
    rows = many(3 * ROWS_A_GROUP)
    write_rows([rows], tmp_path, "full", bytes_a_file=1)
    names = [f"train-0000{number}-of-00003.parquet" for number in range(3)]
    one_each = [f"{split}-00000-of-00001.parquet" for split in ("test", "validation")]
    ids = {}
    for config in configs_of("full"):
        files = sorted((tmp_path / "data" / config).iterdir())
        assert [file.name for file in files] == sorted([*names, *one_each])
        ids[config] = [pl.read_parquet(file)["example_id"].to_list() for file in files]
    assert ids["instruction"] == ids["pretraining"], "files of one number hold the same examples"
    in_order = [one for file in ids["instruction"][1:4] for one in file]
    assert in_order == rows.filter(split="train")["example_id"].to_list()


def test_rows_are_on_disk_before_the_next_batch_is_asked_for(tmp_path: Path) -> None:
    parts = list(many(3 * ROWS_A_GROUP).filter(split="train").iter_slices(ROWS_A_GROUP))

    def batches() -> Iterator[pl.DataFrame]:
        for number, part in enumerate(parts):
            assert len(list(tmp_path.rglob("*.part"))) == 2 * number
            yield part

    assert write_rows(batches(), tmp_path, "full", bytes_a_file=1) == 3 * ROWS_A_GROUP
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize("form", ["full", "pmids"])
def test_a_data_file_is_as_the_viewer_of_the_hub_likes_it(tmp_path: Path, form: Form) -> None:
    write_rows([many(ROWS_A_GROUP + 1)], tmp_path, form)
    for config in configs_of(form):
        path = tmp_path / "data" / config / "train-00000-of-00001.parquet"
        assert pl.read_parquet_schema(path) == schema_of(config, form)
        assert "large" not in str(pq.read_schema(path)), "a large_string is another type to datasets"
        metadata = pq.read_metadata(path)
        groups = [metadata.row_group(at) for at in range(metadata.num_row_groups)]
        assert [group.num_rows for group in groups] == [ROWS_A_GROUP, 1]
        assert groups[0].column(0).compression == "ZSTD"
        assert groups[0].column(0).has_offset_index


def test_the_same_reports_are_the_same_bytes(tmp_path: Path) -> None:
    reports = small_reports()
    cut = {
        name: pl.concat(list(frame.iter_slices(1)) or [frame], rechunk=False)
        for name, frame in reports.items()
    }
    write_reports(tmp_path / "one", reports, b"a picture")
    write_reports(tmp_path / "other", cut, b"a picture")
    one = contents(tmp_path / "one")
    assert sorted(one) == sorted(["reports/coverage.png", *(f"reports/{name}.parquet" for name in reports)])
    assert contents(tmp_path / "other") == one
    for name, frame in reports.items():
        assert pl.read_parquet(tmp_path / "one" / "reports" / f"{name}.parquet").equals(frame)


def test_sha256sum_accepts_the_sums_and_they_name_every_other_file(tmp_path: Path) -> None:
    release = small_release(tmp_path)
    listed = [line.partition("  ")[2] for line in (release / SUMS).read_text().splitlines()]
    assert listed == sorted(set(contents(release)) - {SUMS})
    done = subprocess.run(
        ["sha256sum", "--strict", "-c", SUMS], cwd=release, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stdout
    write_sums(release)
    assert [line.partition("  ")[2] for line in (release / SUMS).read_text().splitlines()] == listed


def test_a_release_made_twice_is_the_same_bytes(tmp_path: Path) -> None:
    one, other = small_release(tmp_path / "one"), small_release(tmp_path / "other")
    assert contents(one) == contents(other)
    assert pl.read_parquet(one / "data" / "instruction" / "*.parquet").height == len(PMIDS)
