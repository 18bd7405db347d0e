"""The release stage: what people publish, load, verify and cite, and what PubMed takes back of it."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from mkailin_assets.corpus.assets import ledgers_of
from mkailin_assets.corpus.coverage_picture import coverage_picture
from mkailin_assets.corpus.decontamination import fingerprints_of
from mkailin_assets.evaluation.benchmark_files import benchmark_items, files_of
from mkailin_assets.metadata import counts, preview
from mkailin_assets.partitions import ALL_PARTITIONS
from mkailin_assets.release.facts import ReleaseFacts
from mkailin_assets.release.gathering import (
    Origins,
    Publication,
    release_facts,
    without_benchmark_text,
)
from mkailin_assets.release.licence_gate import gate
from mkailin_assets.release.recalls import checkpoints_of
from mkailin_assets.release.recalls import release_recalls as recalls_of
from mkailin_assets.release.sources import benchmarks_of, seeds_of, sources_of
from mkailin_assets.release.tables import CorpusRelease, ReleaseRecall
from mkailin_assets.release.writing import releases, write_release
from mkailin_assets.tables import table
from mkailin_resources.benchmarks import BenchmarkFiles
from mkailin_resources.storage import Storage

RELEASES = "releases"


@dg.asset(
    **table(CorpusRelease),
    ins={"raw_pubmed": ALL_PARTITIONS, "pubmed_citations": ALL_PARTITIONS},
    group_name="release",
    kinds={"parquet", "huggingface"},
    code_version="1",
)
def corpus_release(  # noqa: PLR0917 (Dagster reads an asset's inputs from its parameters)
    training_corpus: pl.LazyFrame,
    corpus_exclusions: pl.DataFrame,
    corpus_recalls: pl.DataFrame,
    corpus_lengths: pl.DataFrame,
    mesh_coverage: pl.DataFrame,
    mesh_release: pl.DataFrame,
    raw_pubmed: dict[str, pl.DataFrame],
    pubmed_citations: dict[str, pl.LazyFrame],
    current_citations: pl.LazyFrame,
    benchmarks: BenchmarkFiles,
    publication: dg.ResourceParam[Publication],
    storage: Storage,
) -> dg.Output[pl.DataFrame]:
    """The corpus as a folder to publish: Parquet, dataset card, Croissant metadata, manifest, hashes."""
    sources = sources_of(mesh_release, raw_pubmed, pubmed_citations, current_citations)
    benchmark = benchmark_items(benchmarks).table
    cleaned_of = benchmarks_of(files_of(benchmarks), benchmark, corpus_exclusions)
    origins = Origins(sources, cleaned_of, seeds_of(storage))
    tables = {
        "corpus_exclusions": corpus_exclusions,
        "corpus_recalls": corpus_recalls,
        "corpus_lengths": corpus_lengths,
        "mesh_coverage": mesh_coverage,
    }
    made_on = datetime.now(UTC).date().isoformat()
    facts = release_facts(training_corpus, tables, origins, publication, made_on)
    gate(facts.models)
    known = fingerprints_of(benchmark)
    told_exclusions = without_benchmark_text(corpus_exclusions, known)
    reports = {
        "exclusions": told_exclusions,
        "decontamination": told_exclusions.filter(stage="contamination"),
        "recalls": without_benchmark_text(corpus_recalls, known),
        "coverage": mesh_coverage,
        "taken_back": sources.taken_back,
        "benchmark_runs": known,
    }
    if not storage.has_folder(RELEASES, facts.name):
        with storage.scratch_folder("release") as scratch:
            # Not the scratch folder itself, which its owner alone may read.
            (folder := scratch / facts.name).mkdir()
            write_release(folder, training_corpus, facts, reports, coverage_picture(mesh_coverage))
            storage.publish_folder(folder, RELEASES, facts.name)
    uri = str(storage.path(RELEASES, facts.name))
    folder = storage.local_folder(uri)
    made = releases(storage.read_table("corpus_release"), uri, folder)
    return dg.Output(made, metadata=_release_metadata(uri, facts, folder))


@dg.asset(**table(ReleaseRecall), group_name="release", kinds={"polars"}, code_version="1")
def release_recalls(
    corpus_release: pl.DataFrame, corpus_recalls: pl.DataFrame, storage: Storage
) -> dg.Output[pl.DataFrame]:
    """Rows of each release that rest on what PubMed has taken back since, and what trained on them."""
    recalled = recalls_of(corpus_release, corpus_recalls, ledgers_of(storage), checkpoints_of(storage))
    trained = recalled.filter(pl.col("trained_on").list.len() > 0)
    return dg.Output(
        recalled,
        metadata={
            "releases": corpus_release.height,
            "rows_recalled": recalled.select("release", "example_id").n_unique(),
            "by_release": counts(recalled, "release"),
            "by_reason": counts(recalled, "reason"),
            "trained_on": counts(trained.select(pl.col("trained_on").explode()), "trained_on"),
            "preview": preview(recalled),
        },
    )


def _release_metadata(uri: str, facts: ReleaseFacts, folder: Path) -> dict[str, Any]:
    return {
        "name": facts.name,
        "form": facts.form,
        "rows": facts.rows,
        "splits": facts.by_split,
        "folder": dg.MetadataValue.path(uri),
        "bytes": sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
        "card": dg.MetadataValue.md((folder / "README.md").read_text().partition("\n---\n")[2]),
        "models": preview(
            pl.DataFrame([use.model_dump() for use in facts.models], infer_schema_length=None), rows=20
        ),
        "verify": f"make verify RELEASE={folder}",
    }
