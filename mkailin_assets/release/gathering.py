"""The facts of a release, gathered from the tables it is made of."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import polars as pl

from mkailin_assets.corpus.decontamination import leaks
from mkailin_assets.corpus.recalls import corpus_fingerprint
from mkailin_assets.corpus.signals import SIGNALS, spread_of
from mkailin_assets.corpus.tables import kind_of
from mkailin_assets.pubmed.current import file_order
from mkailin_assets.release.facts import (
    BenchmarkFacts,
    CoverageFacts,
    Form,
    LengthFacts,
    ModelUse,
    ReleaseFacts,
    SourceFile,
    Spread,
)
from mkailin_assets.release.licence_gate import model_uses

# An answer with at least this share of its words in copied spans is a quotation.
COPIED = 0.9
# Of a generator or judge that is no model: rules of MeSH, or the trained generator that a row names itself.
_NO_MODEL = ("cold start", "champion")
_PACKAGES = ("mkailin", "polars", "dagster", "lancedb", "rensa", "transformers", "torch")
# What `facts_of_rows` counts.
COUNTED = (
    *("example_id", "example_hash", "pmid", "branch", "split", "decision", "context_pmids"),
    *SIGNALS,
)
_WRITERS = (
    *("generator", "question_prompt_version", "chosen_by", "answerer", "prompt_version", "entailment_judge"),
)


@dataclass(frozen=True)
class Publication:
    """What a person decides about releases, and the settings that made what is released.

    `exceptions`: model to the reason why its text may be used. `rules` and `settings` are for the manifest:
    nothing of this machine, and no key, is among them.
    """

    form: Form
    exceptions: Mapping[str, str]
    rules: Mapping[str, Mapping[str, Any]]
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Sources:
    """What a corpus was made from, and what is known of PubMed's state.

    `taken_back` has pmid, state and pubmed_file of what PubMed retracted or deleted.
    """

    mesh_year: int
    mesh: SourceFile
    pubmed_files: Sequence[SourceFile]
    retraction_cutoff: str | None
    taken_back: pl.DataFrame

    @property
    def last_update_file(self) -> str:
        """The PubMed file that has the last word."""
        return max((file.name for file in self.pubmed_files), key=file_order, default="none")


@dataclass(frozen=True)
class Origins:
    """All that the manifest says of where a corpus comes from.

    `seeds` are those of the models that were trained for it, by what they are.
    """

    sources: Sources
    benchmarks: Sequence[BenchmarkFacts]
    seeds: Mapping[str, int]


def release_facts(
    corpus: pl.LazyFrame,
    tables: Mapping[str, pl.DataFrame],
    origins: Origins,
    publication: Publication,
    made_on: str,
) -> ReleaseFacts:
    """The manifest of a release of `corpus` (`TrainingExample`, of which the texts are not read).

    `tables` has corpus_exclusions, corpus_recalls, corpus_lengths and mesh_coverage. The name is that of the
    last PubMed file and a hash of all other facts, so that equal releases have one name. Raises
    `LicenceRefused` for an exception without a reason.
    """
    sources = origins.sources
    rows = corpus.select(*COUNTED, *_WRITERS).collect()
    exclusions = tables["corpus_exclusions"]
    facts: dict[str, Any] = {
        "form": publication.form,
        **facts_of_rows(rows),
        "mesh_year": sources.mesh_year,
        "mesh": sources.mesh,
        "pubmed_files": sorted(sources.pubmed_files, key=lambda file: file_order(file.name)),
        "last_update_file": sources.last_update_file,
        "retraction_cutoff": sources.retraction_cutoff,
        "taken_back_citations": sources.taken_back.height,
        "models": models_of(rows, publication.exceptions),
        "benchmarks": list(origins.benchmarks),
        "evaluated": rows.height + exclusions.height,
        "excluded": excluded(exclusions),
        "recalled": tables["corpus_recalls"].select("corpus", "example_id").n_unique(),
        "coverage": _coverage(tables["mesh_coverage"]),
        "lengths": _lengths(tables["corpus_lengths"]),
        "rules": {name: dict(rules) for name, rules in publication.rules.items()},
        "seeds": dict(origins.seeds),
        "settings": dict(publication.settings),
        "packages": _packages(),
    }
    unnamed = ReleaseFacts(name="", made_on="", **facts)
    told = json.dumps(unnamed.model_dump(mode="json"), sort_keys=True)
    digest = hashlib.blake2b(told.encode(), digest_size=4).hexdigest()
    return unnamed.model_copy(
        update={"name": f"mkailin-{sources.last_update_file}-{digest}", "made_on": made_on}
    )


def facts_of_rows(rows: pl.DataFrame) -> dict[str, Any]:
    """Those facts that are counted in the rows (`TrainingExample`, of which the texts are not read)."""
    return {
        "corpus": corpus_fingerprint(rows),
        "rows": rows.height,
        "by_split": _counts(rows["split"]),
        "by_decision": _counts(rows["decision"].fill_null("none")),
        "by_branch": _counts(rows["branch"]),
        "citations": rows["pmid"].n_unique(),
        "context_citations": rows["context_pmids"].explode(empty_as_null=False).n_unique(),
        "copied_answers": int((rows["copied_share"] >= COPIED).sum()),
        "signals": {
            name: Spread(**spread)
            for name in SIGNALS
            if (spread := rows.select(**spread_of(name)).row(0, named=True))["rows"]
        },
    }


def models_of(rows: pl.DataFrame, exceptions: Mapping[str, str]) -> list[ModelUse]:
    """What each model did in these rows: asked, answered, judged two questions, judged an answer."""
    entailed = pl.col("entailment_judge").str.extract_groups(r"^(?<name>.*), (?<version>[^,]*)$")
    used = [
        ("question", True, pl.col("generator"), pl.col("question_prompt_version")),
        ("answer", True, pl.col("answerer"), pl.col("prompt_version")),
        ("preference", False, pl.col("chosen_by"), pl.lit(None, pl.String)),
        ("entailment", False, entailed.struct.field("name"), entailed.struct.field("version")),
    ]
    counted = [
        rows.select(name=name, prompt_version=prompt)
        .filter(pl.col("name").is_not_null() & ~pl.col("name").is_in(_NO_MODEL))
        .group_by("name", "prompt_version")
        .agg(rows=pl.len().cast(pl.Int64))
        .select("name", pl.lit(role).alias("role"), pl.lit(wrote).alias("wrote"), "rows", "prompt_version")
        for role, wrote, name, prompt in used
    ]
    return model_uses(pl.concat(counted), exceptions)


def excluded(exclusions: pl.DataFrame) -> dict[str, dict[str, int]]:
    """Stage to reason to rows; a reason without the text or citation that it is about."""
    counted = (
        exclusions.group_by("stage", kind_of("reason")).len().sort("len", "reason", descending=[True, False])
    )
    found: dict[str, dict[str, int]] = {}
    for stage, reason, rows in counted.iter_rows():
        found.setdefault(stage, {})[reason] = rows
    return found


def without_benchmark_text(rows: pl.DataFrame, fingerprints: pl.DataFrame) -> pl.DataFrame:
    """Excluded or recalled rows as others may read them: without questions and words of a benchmark.

    Who trains on what is published would train on the benchmark. `fingerprints` as `leaks` takes them; a row
    whose question gives an item away need not have been excluded for it, nor at a time when it was known.
    """
    asked = rows.select(
        pl.int_range(pl.len()).cast(pl.String).alias("example_id"),
        pl.col("question").fill_null(""),
        pmid=pl.lit(0, pl.Int64),
        context_pmids=pl.lit([], pl.List(pl.Int64)),
    )
    leaking = leaks(asked, fingerprints)["example_id"].cast(pl.UInt32).unique()
    is_leak = pl.int_range(pl.len(), dtype=pl.UInt32).is_in(leaking.implode())
    if "stage" in rows.columns:
        is_leak |= pl.col("stage") == "contamination"
    told = [name for name in ("question", "evidence") if name in rows.columns]
    return rows.with_columns(pl.when(~is_leak).then(pl.col(name)).alias(name) for name in told)


def retraction_cutoff(last_file: pl.LazyFrame) -> str | None:
    """The last day on which a record of a PubMed file was revised, YYYY-MM-DD; None if none says."""
    days = last_file.select(pl.col("revised").filter(pl.col("revised").str.len_chars() == 10).max())
    day = days.collect().item()
    return None if day is None else str(day)


def _counts(values: pl.Series) -> dict[str, int]:
    counted = values.value_counts(name="rows").sort("rows", values.name, descending=[True, False])
    return dict(counted.iter_rows())


def _coverage(coverage: pl.DataFrame) -> CoverageFacts:
    branches = coverage.filter(level="branch")
    depths = coverage.filter(level="depth")
    return CoverageFacts(
        branches=branches.filter(pl.col("examples") > 0).height,
        branches_of_pubmed=branches.filter(pl.col("pubmed_citations") > 0).height,
        descriptors=int(depths["corpus_descriptors"].sum()),
        descriptors_of_pubmed=int(depths["pubmed_descriptors"].sum()),
    )


def _lengths(lengths: pl.DataFrame) -> list[LengthFacts]:
    summed = lengths.group_by("form", "tokenizer", "sequence_length", maintain_order=True).agg(
        pl.col("examples", "tokens", "sequences").sum(), pl.col("longest").max()
    )
    return [LengthFacts(**row) for row in summed.to_dicts()]


def _packages() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except ModuleNotFoundError:
            continue
    return found
