"""A release is written whole into a folder, then published; what there is of it in the table."""

from collections.abc import Mapping
from pathlib import Path

import polars as pl

from mkailin_assets.corpus.assembly import in_batches
from mkailin_assets.release.card import card
from mkailin_assets.release.croissant import croissant
from mkailin_assets.release.facts import ReleaseFacts
from mkailin_assets.release.layout import SUMS, write_reports, write_rows, write_sums
from mkailin_assets.release.notice import licence_text, notice_text
from mkailin_assets.release.tables import CorpusRelease
from mkailin_resources.training_checkpoints import sha256


def write_release(
    folder: Path,
    corpus: pl.LazyFrame,
    facts: ReleaseFacts,
    reports: Mapping[str, pl.DataFrame],
    picture: bytes,
) -> None:
    """Write rows, reports, manifest, card, Croissant metadata, licence and sums into an empty folder.

    One batch of rows is in memory at a time.
    """
    write_rows(in_batches(corpus), folder, facts.form)
    write_reports(folder, reports, picture)
    describe(folder, facts)


def describe(folder: Path, facts: ReleaseFacts) -> None:
    """Write what is said of the rows and reports that lie in the folder, and the sums of all files, last."""
    facts.write(folder)
    (folder / "README.md").write_text(card(facts), encoding="utf-8")
    (folder / "LICENSE").write_text(licence_text(facts), encoding="utf-8")
    (folder / "NOTICE").write_text(notice_text(facts), encoding="utf-8")
    (folder / "croissant.json").write_text(croissant(facts, folder), encoding="utf-8")
    write_sums(folder)


def releases(earlier: pl.DataFrame | None, uri: str, folder: Path) -> pl.DataFrame:
    """`CorpusRelease` with the release in `folder`, which lies at `uri`, as the current one."""
    facts = ReleaseFacts.read(folder)
    row = {
        **facts.model_dump(include={"name", "form", "corpus", "rows", "made_on", "last_update_file"}),
        "retraction_cutoff": facts.retraction_cutoff,
        "uri": uri,
        "sums_sha256": sha256(folder / SUMS),
        "is_current": True,
    }
    empty = CorpusRelease.create_empty()
    known = empty if earlier is None else earlier.with_columns(is_current=False)
    return pl.concat([known.filter(pl.col("name") != facts.name), pl.DataFrame([row], schema=empty.schema)])
