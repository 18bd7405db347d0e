"""What a corpus was made from: files and their hashes, benchmarks it is clean of, seeds of its models."""

import json
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

import polars as pl

from mkailin_assets.evaluation.benchmark_files import BenchmarkFile
from mkailin_assets.pubmed.current import file_order
from mkailin_assets.release.facts import BenchmarkFacts, SourceFile
from mkailin_assets.release.gathering import Sources, retraction_cutoff
from mkailin_resources.storage import Storage

# The models that were trained before the corpus was made, and may have written or judged it.
TRAINED = ("domain_generator", "general_generator", "evaluator_checkpoint", "preferred_generator")


def sources_of(
    mesh_release: pl.DataFrame,
    raw_pubmed: Mapping[str, pl.DataFrame],
    pubmed_citations: Mapping[str, pl.LazyFrame],
    current_citations: pl.LazyFrame,
) -> Sources:
    """What `MeshRelease`, `RawPubmed`, `PubmedRecord` and `CurrentCitation` say of the sources."""
    year, name, url, sha256 = mesh_release.select("year", "name", "url", "sha256").row(0)
    # What was fetched and not parsed yet has said nothing.
    files = [row for key in pubmed_citations if key in raw_pubmed for row in raw_pubmed[key].to_dicts()]
    last = max(pubmed_citations, key=file_order, default=None)
    return Sources(
        mesh_year=year,
        mesh=SourceFile(name=name, url=_public(url), algorithm="sha256", digest=sha256),
        pubmed_files=[
            SourceFile(
                name=file["pubmed_file"], url=_public(file["url"]), algorithm="md5", digest=file["md5"]
            )
            for file in files
        ],
        retraction_cutoff=None if last is None else retraction_cutoff(pubmed_citations[last]),
        taken_back=current_citations.filter(pl.col("state") != "current")
        .select("pmid", "state", "pubmed_file")
        .collect(),
    )


def benchmarks_of(
    files: Iterable[BenchmarkFile], asked: pl.DataFrame, exclusions: pl.DataFrame
) -> list[BenchmarkFacts]:
    """The benchmarks that a corpus was kept clean of, and how many pairs each of them cost.

    Takes their files, their items (columns `BENCHMARK`) and `CorpusExclusion`.
    """
    named = asked.select("benchmark", "item").unique()
    items = dict(named["benchmark"].value_counts().iter_rows())
    removed = dict(exclusions["benchmark"].drop_nulls().value_counts().iter_rows())
    return [
        BenchmarkFacts(
            file=SourceFile(name=file.name, url=None, algorithm="sha256", digest=file.sha256),
            items=items.get(file.name, 0),
            removed=removed.get(file.name, 0),
        )
        for file in files
    ]


def seeds_of(storage: Storage) -> dict[str, int]:
    """Seed of each model that was trained before the corpus was made, by the asset that trained it."""
    seeds = {}
    for name in TRAINED:
        made = storage.read_table(name)
        for uri in [] if made is None else made["uri"].drop_nulls().head(1).to_list():
            record = json.loads((storage.local_folder(uri) / "training.json").read_text())
            seeds[name] = int(record["settings"]["seed"])
    return seeds


def _public(url: str) -> str | None:
    """Where everybody finds the file: at NLM; None for a copy, whose address may be nobody's business."""
    parts = urlsplit(url)
    is_nlm = (parts.hostname or "").endswith((".nlm.nih.gov", ".ncbi.nlm.nih.gov"))
    return f"https://{parts.hostname}{parts.path}" if is_nlm else None
