"""`make demo` as its user meets it: one command, the whole lineage, and no work done twice."""

import shutil
from pathlib import Path

import polars as pl
import pytest
from distillation import Distilled, distill, sample_environment
from lineage import BRANCH_TABLES, LINEAGE

from mkailin_assets.partitions import unbroken
from mkailin_resources.sample import NLM_FOLDER

BRANCHES = ["C04", "C06", "C08"]


def test_every_table_of_the_lineage_can_be_read_with_polars(distilled: Distilled) -> None:
    for name in LINEAGE:
        folder = distilled.tables / name
        files = sorted(folder.glob("*.parquet")) if folder.is_dir() else [folder.with_suffix(".parquet")]
        assert files, name
        for file in files:
            pl.read_parquet(file)
    for name in BRANCH_TABLES:
        assert [file.stem for file in sorted((distilled.tables / name).iterdir())] == BRANCHES


def test_the_report_names_every_asset_and_where_things_lie(distilled: Distilled) -> None:
    for name in LINEAGE:
        assert name in distilled.output
    for word in ("From the corpus", "checkpoint", "corpus", "report", "make dev"):
        assert word in distilled.output


def test_a_second_run_repeats_nothing(distilled: Distilled) -> None:
    before = {file: file.stat().st_mtime_ns for file in distilled.tables.rglob("*.parquet")}
    again = distilled.again()
    assert again.returncode == 0, again.stdout + again.stderr
    assert "✓" not in again.stdout
    assert again.stdout.count("up to date") == len(LINEAGE)
    assert {file: file.stat().st_mtime_ns for file in distilled.tables.rglob("*.parquet")} == before


def test_another_branch_costs_that_branch_and_what_reads_all_branches(distilled: Distilled) -> None:
    done = distilled.again(MKAILIN_BRANCHES="C04 C05 C06 C08")
    assert done.returncode == 0, done.stdout + done.stderr
    materialized = [line.split()[1:] for line in done.stdout.splitlines() if line.strip().startswith("✓")]
    assert {name[0].rstrip(",") for name in materialized} == {
        *BRANCH_TABLES,
        "training_corpus",
        "corpus_exclusions",
        "corpus_recalls",
        "corpus_lengths",
        "mesh_coverage",
        "coverage_gaps",
        "corpus_release",
        "release_recalls",
        "pretrained_checkpoint",
        "finetuned_checkpoint",
        "benchmark_answers",
        "benchmark_report",
        "benchmark_comparisons",
    }
    assert all("C05" in " ".join(name) for name in materialized if name[0].rstrip(",") in BRANCH_TABLES)


def test_a_damaged_file_stops_the_run_before_anything_is_made_from_the_others(tmp_path: Path) -> None:
    copy = tmp_path / "nlm [copy]"
    shutil.copytree(NLM_FOLDER, copy)
    damaged = copy / "pubmed" / "baseline" / "pubmed26n0002.xml.gz"
    damaged.write_bytes(damaged.read_bytes()[:-100])
    environment = sample_environment(tmp_path / "root", "C04") | {"MKAILIN_NLM_URL": str(copy)}
    done = distill(environment)
    assert done.returncode == 1
    assert "MD5" in done.stdout
    assert "failed: pubmed_file pubmed26n0002" in done.stdout
    assert not (tmp_path / "root" / "tables" / "current_citations.parquet").exists()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"MKAILIN_BRANCHES": "C04 X99"}, "X99"),
        ({"MKAILIN_NLM_URL": "/nowhere"}, "/nowhere"),
        ({"MKAILIN_MESH_YEAR": "1999"}, "1999"),
        ({"MKAILIN_PUBMED_FILES": "pubmed99n*"}, "pubmed99n"),
    ],
)
def test_a_wrong_setting_ends_the_run_with_a_word_about_it(
    tmp_path: Path, settings: dict[str, str], said: str
) -> None:
    done = distill({**sample_environment(tmp_path, "C04"), **settings})
    assert done.returncode != 0
    assert said in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_branches_that_follow_one_another_are_gathered_in_one_pass() -> None:
    assert list(unbroken(["C10", "C04", "C05", "F03"])) == [("C04", "C05"), ("C10", "C10"), ("F03", "F03")]
    assert list(unbroken([])) == []
