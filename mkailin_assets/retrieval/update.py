"""From parsed citations to the index that holds them."""

from collections.abc import Callable, Iterable, Iterator, Mapping

import dataframely as dy
import polars as pl

from mkailin_assets.mesh.hierarchy import heading_key
from mkailin_assets.retrieval.tables import ContextIndex
from mkailin_resources.embeddings.checkpoint import open_encoder
from mkailin_resources.index import CITATION, ContextStore, IndexUpdate

PubmedFiles = Mapping[str, pl.LazyFrame]


def findable(current_citations: pl.DataFrame) -> pl.DataFrame:
    """The current citations that have an abstract: those the index should hold."""
    return current_citations.filter((pl.col("state") == "current") & pl.col("has_abstract"))


def records_of(citations: pl.DataFrame, pubmed_citations: PubmedFiles) -> Iterator[pl.LazyFrame]:
    """The PubmedRecord rows of these current citations, with their home_branch.

    A frame for each PubMed file that holds some. A citation whose file is not there, or holds another record
    in its place, is not among them.
    """
    for (pubmed_file,), wanted in citations.sort("pubmed_file").group_by("pubmed_file", maintain_order=True):
        if pubmed_file in pubmed_citations:
            records = pubmed_citations[str(pubmed_file)].filter(pl.col("record") == "citation")
            keys = wanted.lazy().select("pmid", "position", "content_hash", "home_branch")
            yield records.join(keys, on=["pmid", "position", "content_hash"])


def texts_of(citations: pl.DataFrame, pubmed_citations: PubmedFiles) -> Iterator[pl.DataFrame]:
    """The records of these current citations as the index keeps them, with the columns `CITATION`.

    One frame in memory at a time, as `records_of` gives them; text is title, newline, abstract with its
    labels, heading_uis are distinct and ascending.
    """
    for records in records_of(citations, pubmed_citations):
        made = records.with_columns(
            _title(), text(), heading_uis(), languages="language", branch="home_branch"
        )
        yield made.select(*CITATION).collect()


def sample(current_citations: pl.DataFrame, at_most: int) -> pl.DataFrame:
    """Findable citations, a seeded sample of them where there are more than `at_most`."""
    citations = findable(current_citations).sort("pmid")
    return citations if citations.height <= at_most else citations.sample(at_most, seed=0)


def sample_texts(current_citations: pl.DataFrame, pubmed_citations: PubmedFiles, at_most: int) -> list[str]:
    """Texts of findable citations by PMID, a seeded sample of them where there are more than `at_most`."""
    citations = sample(current_citations, at_most)
    frames = [frame.select("pmid", "text") for frame in texts_of(citations, pubmed_citations)]
    return pl.concat(frames).sort("pmid")["text"].to_list() if frames else []


def update_index(  # noqa: PLR0917
    store: ContextStore,
    checkpoint: pl.DataFrame,
    current_citations: pl.DataFrame,
    pubmed_citations: PubmedFiles,
    recorded: pl.DataFrame | None,
    log: Callable[[str], None] = lambda _: None,
) -> tuple[pl.DataFrame, IndexUpdate]:
    """Bring the index to the current citations: its ContextIndex row, and what was done.

    `recorded` is the row published last; it comes back as it is when nothing has changed.
    """
    made = checkpoint.row(0, named=True)
    encoder = open_encoder(made["uri"], made["fingerprint"], store.storage)
    wanted = findable(current_citations)
    same_index = recorded is not None and recorded.item(0, "uri") == str(store.folder(encoder))
    done = store.update(
        wanted.rename({"home_branch": "branch"}),
        _reader(wanted, pubmed_citations),
        encoder,
        recorded.item(0, "table_version") if recorded is not None and same_index else None,
        log,
    )
    row = one_row(
        ContextIndex,
        uri=done.uri,
        table_version=done.table_version,
        encoder=made["encoder"],
        encoder_uri=made["uri"],
        encoder_fingerprint=made["fingerprint"],
        citations=done.citations,
        without_vector=done.unembedded.height,
        without_abstract=current_citations.filter(pl.col("state") == "current").height - wanted.height,
        added=done.added,
        replaced=done.replaced,
        removed=done.removed,
    )
    counts = ["added", "replaced", "removed"]
    if recorded is not None and recorded.drop(counts).equals(row.drop(counts)):
        return recorded, done
    return row, done


def sample_search(store: ContextStore, context_index: pl.DataFrame, pmids: Iterable[int]) -> pl.DataFrame:
    """What the titles of these citations find in the index: question, rank, pmid, found_by, title."""
    searcher = store.open(context_index)
    questions = searcher.texts(pmids)["title"].to_list()
    found = [
        {"question": question, "rank": rank, "pmid": hit.pmid, "found_by": hit.found_by}
        for question, hits in zip(questions, searcher.search(questions, 4), strict=True)
        for rank, hit in enumerate(hits, 1)
    ]
    hits = pl.DataFrame(
        found, schema={"question": pl.String, "rank": pl.Int32, "pmid": pl.Int64, "found_by": pl.String}
    )
    return hits.join(
        searcher.texts(hits["pmid"]).select("pmid", "title"), on="pmid", how="left", maintain_order="left"
    )


def _reader(
    wanted: pl.DataFrame, pubmed_citations: PubmedFiles
) -> Callable[[pl.Series], Iterable[pl.DataFrame]]:
    return lambda pmids: texts_of(wanted.filter(pl.col("pmid").is_in(pmids.implode())), pubmed_citations)


def _title() -> pl.Expr:
    return pl.col("title").fill_null("")


def text() -> pl.Expr:
    """Title, newline, abstract with its labels, a line for each section: what is indexed and encoded."""
    return pl.concat_str([_title(), abstract_text()], separator="\n").alias("text")


def abstract_text() -> pl.Expr:
    """Abstract with its labels, a line for each section: what contexts show, and `Searcher.texts` gives."""
    section = pl.element().struct
    labelled = pl.concat_str([section.field("label") + ": ", section.field("text")], ignore_nulls=True)
    return pl.col("abstract").list.eval(labelled).list.join("\n")


def heading_uis() -> pl.Expr:
    """Distinct `headings`, ascending: descriptor UIs, or names where the record gives no UI."""
    keys = pl.col("headings").list.eval(heading_key())
    return keys.list.unique().list.sort().alias("heading_uis")


def one_row(schema: type[dy.Schema], **values: object) -> pl.DataFrame:
    """A table of one row; what is not given is null."""
    return pl.DataFrame([values], schema=schema.create_empty().schema)
