"""An update file reaches what it names, from the citations of a branch to the corpus, and nothing else."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from lineage import BRANCH_TABLES

from mkailin_assets.definitions import definitions
from mkailin_assets.distill import Distillation
from mkailin_assets.partitions import PUBMED_FILES
from mkailin_resources.profiles import Settings

BRANCHES = ("C04", "C06", "F03")  # the sample's update leaves C06 alone
UPDATE = "pubmed26n0003"
FILES = ("pubmed26n0001", "pubmed26n0002", UPDATE)
BEYOND = (
    "pretrained_checkpoint",
    "finetuned_checkpoint",
    "benchmark_answers",
    "benchmark_report",
    "benchmark_comparisons",
    "retrieval_report",
    "evaluator_audit",
)


class UpToTheCorpus(Distillation):
    """The lineage as far as the corpus or, with `corpus_alone`, with the branches as they are."""

    corpus_alone = False

    def _assets_of(self, job: str) -> list[str]:
        wanted = [name for name in super()._assets_of(job) if name not in BEYOND]
        return [] if self.corpus_alone and set(wanted) <= set(BRANCH_TABLES) else wanted

    def _gather_branches(self, branches: Sequence[str]) -> None:
        if not self.corpus_alone:
            super()._gather_branches(branches)


Made = tuple[int, str, str | None]


@dataclass(frozen=True)
class States:
    """Tables before the update, with the corpus alone made again, and after; PMIDs that the update names.

    `made_since` is what the update had made, `made` the part of it that came after the corpus alone.
    """

    before: Path
    corpus_alone: Path
    after: Path
    made: set[Made]
    made_since: set[Made]

    def touched(self) -> set[int]:
        what = ["pmid", "state", "content_hash", "home_branch"]
        old, new = (
            pl.read_parquet(root / "current_citations.parquet").select(what)
            for root in (self.before, self.after)
        )
        changed = [
            one.join(other, on=what, how="anti", nulls_equal=True) for one, other in ((old, new), (new, old))
        ]
        return set(pl.concat(changed)["pmid"])


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> Iterator[States]:
    root = tmp_path_factory.mktemp("carried")
    tables = root / "kept" / "tables"

    def bring_up_to_date(*files: str, corpus_alone: bool = False) -> None:
        environment = {
            "MKAILIN_NLM_URL": "sample",
            "MKAILIN_STORAGE": str(root / "kept"),
            "MKAILIN_BRANCHES": " ".join(BRANCHES),
            "MKAILIN_PUBMED_FILES": " ".join(files),
            # What updates reach is the same, whoever asks; trained agents would ask more slowly.
            "MKAILIN_TRAIN_AGENTS": "no",
        }
        settings = Settings.from_environment(environment)
        distillation = UpToTheCorpus(definitions(settings), instance, settings)
        distillation.corpus_alone = corpus_alone
        instance.add_dynamic_partitions(PUBMED_FILES, list(files))
        distillation.run(files)
        assert distillation.failures == []

    with dg.DagsterInstance.ephemeral(str(root)) as instance:
        bring_up_to_date(*FILES[:2])
        shutil.copytree(tables, root / "before")
        first = _materializations(instance)
        bring_up_to_date(*FILES, corpus_alone=True)
        shutil.copytree(tables, root / "corpus_alone")
        earlier = _materializations(instance)
        bring_up_to_date(*FILES)
        made = _materializations(instance)
        yield States(root / "before", root / "corpus_alone", tables, made - earlier, made - first)


def _materializations(instance: dg.DagsterInstance) -> set[Made]:
    return {
        (record.storage_id, key.to_user_string(), record.partition_key)
        for key in instance.get_asset_keys()
        for record in instance.fetch_materializations(key, limit=1000).records
    }


def rows(root: Path, asset: str) -> pl.DataFrame:
    return pl.concat([pl.read_parquet(root / asset / f"{branch}.parquet") for branch in BRANCHES]).sort(
        "pmid"
    )


def test_the_update_revises_retracts_deletes_and_adds(states: States) -> None:
    named = pl.read_parquet(states.after / "current_citations.parquet").filter(pubmed_file=UPDATE)
    assert {"current", "retracted", "deleted"} == set(named["state"])
    assert len(states.touched()) == 13


def test_an_update_changes_the_index_and_not_the_encoder(states: States) -> None:
    made = {asset for _, asset, _ in states.made_since}
    assert "context_index" in made
    assert "retriever_checkpoint" not in made
    encoders = [root / "retriever_checkpoint.parquet" for root in (states.before, states.after)]
    assert encoders[0].stat().st_mtime_ns == encoders[1].stat().st_mtime_ns


@pytest.mark.parametrize("asset", BRANCH_TABLES)
def test_rows_of_untouched_citations_are_the_same_to_the_byte(states: States, asset: str) -> None:
    touched = pl.Series(sorted(states.touched())).implode()
    read = pl.col("contexts").list.eval(pl.element().struct.field("pmid").is_in(touched)).list.any()
    reading = rows(states.before, "candidate_contexts").filter(read)["pmid"]
    changing = pl.concat([touched.explode(), reading]).implode()
    before, after = (
        rows(root, asset).filter(~pl.col("pmid").is_in(changing)) for root in (states.before, states.after)
    )
    assert before.height > 80
    assert before.sort(pl.all()).equals(after.sort(pl.all()))


def test_a_revised_citation_is_distilled_again(states: States) -> None:
    current = pl.read_parquet(states.after / "current_citations.parquet")
    old, new = (
        rows(root, "evaluated_qa").select("pmid", "content_hash") for root in (states.before, states.after)
    )
    assert new.join(current, on=["pmid", "content_hash"], how="anti").is_empty()
    revised = old.join(new, on="pmid").filter(pl.col("content_hash") != pl.col("content_hash_right"))
    assert revised["pmid"].to_list() == [90000167]


@pytest.mark.parametrize("asset", ["branch_citations", "candidate_questions", "generated_qa", "evaluated_qa"])
def test_a_retracted_or_deleted_citation_leaves_every_table(states: States, asset: str) -> None:
    current = pl.read_parquet(states.after / "current_citations.parquet")
    gone = current.filter(pl.col("state") != "current")["pmid"].implode()
    assert rows(states.before, asset)["pmid"].is_in(gone).any()
    assert not rows(states.after, asset)["pmid"].is_in(gone).any()


def test_the_corpus_is_right_before_any_branch_is_made_since(states: States) -> None:
    assert rows(states.corpus_alone, "evaluated_qa").equals(rows(states.before, "evaluated_qa"))
    exclusions = pl.read_parquet(states.corpus_alone / "corpus_exclusions.parquet").filter(stage="source")
    assert {"source retracted", "source deleted", "source revised since", "context retracted"} <= set(
        exclusions["reason"]
    )
    before, alone = (
        pl.read_parquet(root / "training_corpus.parquet") for root in (states.before, states.corpus_alone)
    )
    left = before.join(alone, on="example_id", how="anti")
    assert left.height > 0
    assert left.join(exclusions, on="pmid", how="anti").is_empty()
    recalled = pl.read_parquet(states.corpus_alone / "corpus_recalls.parquet")
    assert set(recalled["example_id"]) == set(left["example_id"])
    assert set(recalled["pubmed_file"]) == {UPDATE}


def test_recalls_of_the_first_corpus_stay_when_the_branches_are_made_since(states: States) -> None:
    alone, after = (
        pl.read_parquet(root / "corpus_recalls.parquet") for root in (states.corpus_alone, states.after)
    )
    assert alone.height > 0
    assert alone.equals(after)


def test_a_branch_that_the_update_leaves_alone_is_not_asked_again(states: States) -> None:
    assert (states.after / "candidate_questions" / "C06.parquet").exists()
    asked = {partition for _, asset, partition in states.made if asset == "candidate_questions"}
    assert asked == {"C04", "F03"}
    gathered = [root / "branch_citations" / "C06.parquet" for root in (states.before, states.after)]
    assert gathered[0].read_bytes() == gathered[1].read_bytes()
