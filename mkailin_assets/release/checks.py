"""Checks on the release stage."""

import dagster as dg
import polars as pl

from mkailin_assets.metadata import none_may_be, preview
from mkailin_assets.release.assets import corpus_release, release_recalls
from mkailin_assets.release.verify import verify
from mkailin_resources.storage import Storage


@dg.asset_check(asset=corpus_release, blocking=True)
def release_verifies(corpus_release: pl.DataFrame, storage: Storage) -> dg.AssetCheckResult:
    """The current release is whole: hashes, schema, splits, no leak, nothing retracted.

    Of one that is not, remove the folder and materialize corpus_release again.
    """
    uri = corpus_release.filter("is_current")["uri"][0]
    findings = verify(storage.local_folder(uri))
    found = pl.DataFrame(
        [(finding.what, finding.file, finding.found) for finding in findings],
        schema={"what": pl.String, "file": pl.String, "found": pl.String},
        orient="row",
    )
    return none_may_be(found, f"findings in {uri}; where there are any, remove it and materialize it again")


@dg.asset_check(asset=corpus_release, additional_ins={"training_corpus": dg.AssetIn("training_corpus")})
def release_holds_the_corpus(
    corpus_release: pl.DataFrame, training_corpus: pl.LazyFrame
) -> dg.AssetCheckResult:
    """The current release has as many rows as the corpus."""
    rows, released = training_corpus.select(pl.len()).collect().item(), corpus_release.filter("is_current")
    return dg.AssetCheckResult(
        passed=released["rows"].to_list() == [rows],
        description=f"{rows:,} examples in the corpus, {released['rows'][0]:,} in {released['name'][0]}",
    )


@dg.asset_check(asset=release_recalls, additional_ins={"corpus_release": dg.AssetIn("corpus_release")})
def current_release_stands(
    release_recalls: pl.DataFrame, corpus_release: pl.DataFrame
) -> dg.AssetCheckResult:
    """No row of the current release rests on what PubMed has taken back; else make a new one."""
    current = corpus_release.filter("is_current").select(release="name")
    recalled = release_recalls.join(current, on="release", how="semi")
    return dg.AssetCheckResult(
        passed=recalled.is_empty(),
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{recalled['example_id'].n_unique()} rows of the current release are recalled"
        + ("" if recalled.is_empty() else ": bring the corpus up to date and release it again"),
        metadata={"first": preview(recalled)},
    )
