"""From the evaluated pairs of all branches to one corpus to train on, and what stays out of it."""

import hashlib
import math
from collections.abc import Callable, Mapping

import polars as pl
from pydantic import BaseModel, Field

from mkailin_assets.corpus import chat
from mkailin_assets.corpus.decontamination import contamination, normalised
from mkailin_assets.corpus.duplicates import duplicates
from mkailin_assets.corpus.recalls import citations_of, taken_back
from mkailin_assets.corpus.tables import CorpusExclusion, EvaluatedQA, TrainingExample

# Percent of the sources; a citation stays where it is whatever arrives, so these never change.
TRAIN_PERCENT, VALIDATION_PERCENT = 80, 10


class AssemblyRules(BaseModel):
    """What the corpus looks like as a whole."""

    max_context_characters: int = Field(6000, ge=100, description="Longer contexts are cut at a word")
    min_duplicate_similarity: float = Field(
        0.9, gt=0, le=1, description="Jaccard similarity of two questions from which the later one leaves"
    )
    max_decision_share: float = Field(
        0.9, gt=0, le=1, description="Largest share of the most frequent decision; 1: as it comes"
    )


def assemble(
    evaluated: Mapping[str, pl.LazyFrame],
    current: pl.DataFrame,
    benchmark: pl.DataFrame,
    rules: AssemblyRules,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The rows to train on (`TrainingExample`) and those that stay out (`CorpusExclusion`), by PMID.

    `evaluated` holds an `EvaluatedQA` table for each branch, `current` is `CurrentCitation`, `benchmark`
    has `pmid` and `question` of each benchmark item. Every row comes out once: in the corpus, or with the
    first stage that refused it and why. Earlier PMIDs win over later duplicates, and the places
    that the decision cap leaves go by a hash of the PMID, so that growth moves little.
    Memory grows with the text of all branches.
    """
    frames = [EvaluatedQA.create_empty().lazy(), *evaluated.values()]
    rows = pl.concat(frames).sort("pmid", "branch").collect()
    rows = without_held_out_contexts(rows.with_columns(made_of=_made_of())).with_columns(*_texts(rules))
    stages: dict[str, Callable[[pl.DataFrame], pl.Series]] = {
        "evaluation": _refused_by_evaluation,
        "source": lambda left: outdated(left, current),
        "contamination": lambda left: contamination(left.with_columns(text=_all_text()), benchmark),
        "duplicate": lambda left: repeated(left, rules.min_duplicate_similarity),
        "balance": lambda left: over_represented(left, rules.max_decision_share),
    }
    excluded: list[pl.DataFrame] = [CorpusExclusion.create_empty()]
    for stage, refuse in stages.items():
        reasons = refuse(rows)
        out = rows.with_columns(stage=pl.lit(stage), reason=reasons).filter(reasons.is_not_null())
        excluded.append(out.select(excluded[0].columns))
        rows = rows.filter(reasons.is_null())
    return _examples(rows), pl.concat(excluded).sort("pmid", "branch")


def without_held_out_contexts(rows: pl.DataFrame) -> pl.DataFrame:
    """The rows with their split, those to train on without contexts of the other splits' citations.

    What a citation concludes, the answer to a held-out question, must not be read in training.
    """
    found = rows["contexts"].explode(empty_as_null=False).struct.field("pmid").unique()
    held_out = [pmid for pmid in found if split_of(pmid) != "train"]
    split = pl.col("pmid").map_elements(split_of, return_dtype=pl.String)
    shown = pl.element().filter(~pl.element().struct.field("pmid").is_in(held_out))
    return rows.with_columns(split=split).with_columns(
        contexts=pl.when(split == "train").then(pl.col("contexts").list.eval(shown)).otherwise("contexts")
    )


def outdated(rows: pl.DataFrame, current: pl.DataFrame) -> pl.Series:
    """Why a row's source or a context of it no longer stands in PubMed as it was read; null where it does.

    Every context counts that the answer was made from, those that training does not show too.
    """
    numbered = rows.with_row_index("row").select("row", "pmid", "branch", "made_of")
    back = taken_back(citations_of(numbered, ["row"]), current).unique(
        "row", keep="first", maintain_order=True
    )
    homes = current.select("pmid", "home_branch")
    moved = pl.when(pl.col("home_branch").ne_missing(pl.col("branch"))).then(
        pl.lit("source belongs to another branch now")
    )
    return (
        numbered.join(back.select("row", "reason"), on="row", how="left", maintain_order="left")
        .join(homes, on="pmid", how="left", maintain_order="left")
        .select(reason=pl.coalesce("reason", moved))
        .to_series()
    )


def repeated(rows: pl.DataFrame, similarity: float) -> pl.Series:
    """Which earlier row asks the same question, rows in the order of their PMIDs; null where none does."""
    asked = rows.select(normalised(pl.col("question"))).to_series().to_list()
    pmids = rows["pmid"].to_list()

    def reason(index: int, earlier: int | None) -> str | None:
        if earlier is None:
            return None
        how = "the same" if asked[index] == asked[earlier] else "nearly the same"
        return f"asks {how} as PMID {pmids[earlier]}"

    found = enumerate(duplicates(asked, similarity))
    return pl.Series("reason", [reason(index, earlier) for index, earlier in found], dtype=pl.String)


def over_represented(rows: pl.DataFrame, share: float) -> pl.Series:
    """Why a row of the most frequent decision is one too many; null where it is not.

    The share is one of the rows that decide something. Where there is one decision alone there is nothing
    to balance it against, and all rows stay.
    """
    kinds = rows["decision"].drop_nulls().value_counts().sort("count", "decision", descending=True)
    if kinds.height < 2 or share == 1:
        return pl.Series("reason", [None] * rows.height, dtype=pl.String)
    most, count = kinds.row(0)
    # Rounding must not cost a row that the share allows.
    places = math.floor(share / (1 - share) * (kinds["count"].sum() - count) + 1e-9)
    order = by_hash("balance")
    turn = order.rank("ordinal").over("decision")
    reason = pl.lit(f"one {most} too many: {places} of them make {share:.0%}")
    return rows.select(
        reason=pl.when((pl.col("decision") == most) & (turn > places)).then(reason)
    ).to_series()


def split_of(pmid: int) -> str:
    """The split of a source citation: train, validation or test; decided by the PMID alone."""
    place = pmid_hash(pmid, "split") % 100
    if place < TRAIN_PERCENT:
        return "train"
    return "validation" if place < TRAIN_PERCENT + VALIDATION_PERCENT else "test"


def pmid_hash(pmid: int, purpose: str) -> int:
    """64 bits that look random, the same on every machine; each purpose has its own, unrelated ones."""
    digest = hashlib.blake2b(str(pmid).encode(), digest_size=8, person=purpose.encode()).digest()
    return int.from_bytes(digest, "big")


def by_hash(purpose: str) -> pl.Expr:
    """`pmid_hash` of the column pmid: an order that looks drawn, and stays as the corpus grows."""
    return pl.col("pmid").map_elements(lambda pmid: pmid_hash(pmid, purpose), return_dtype=pl.UInt64)


def _texts(rules: AssemblyRules) -> list[pl.Expr]:
    one = pl.element().struct
    label, title, text = pl.format("[{}]", one.field("rank")), one.field("title"), one.field("text")
    titled = pl.when(title != "").then(title)
    labelled = pl.concat_str(label, titled, text, separator=" ", ignore_nulls=True)
    found = pl.col("contexts").list.eval(labelled).list.join("\n\n")
    retrieved = pl.when(found != "").then(found)
    source, question = pl.col("source_context"), pl.col("question")

    def paragraphs(*parts: pl.Expr) -> pl.Expr:
        return pl.concat_str(*parts, separator="\n\n", ignore_nulls=True)

    return [
        _cut(paragraphs(source, retrieved), rules.max_context_characters).alias("context"),
        paragraphs(pl.col("title"), source, retrieved, question).alias("pretraining_text"),
        pl.col("contexts").list.eval(one.field("pmid")).alias("context_pmids"),
    ]


def _made_of() -> pl.Expr:
    def citation(use: str, pmid: pl.Expr, content_hash: pl.Expr) -> pl.Expr:
        return pl.struct(use=pl.lit(use), pmid=pmid, content_hash=content_hash)

    one = pl.element().struct
    source = citation("source", pl.col("pmid"), pl.col("content_hash"))
    contexts = pl.col("contexts").list.eval(citation("context", one.field("pmid"), one.field("content_hash")))
    return pl.concat_list(source, contexts)


def _all_text() -> pl.Expr:
    return pl.concat_str("pretraining_text", "long_answer", separator="\n\n", ignore_nulls=True)


def _cut(text: pl.Expr, characters: int) -> pl.Expr:
    start = text.str.head(characters).str.replace(r"\s+\S*$", "")
    return pl.when(text.str.len_chars() > characters).then(start).otherwise(text)


def _refused_by_evaluation(rows: pl.DataFrame) -> pl.Series:
    reasons = pl.when(~pl.col("kept")).then(pl.col("reasons").list.join("; "))
    return rows.select(reason=reasons).to_series()


def _examples(rows: pl.DataFrame) -> pl.DataFrame:
    def example_id(pmid: int, question: str) -> str:
        return hashlib.blake2b(f"{pmid}\n{question}".encode(), digest_size=16).hexdigest()

    ids = [example_id(pmid, question) for pmid, question in rows.select("pmid", "question").iter_rows()]
    decides = pl.col("decision").is_not_null()
    told = pl.when(decides).then(pl.lit(chat.DECIDE)).otherwise(pl.lit(chat.EXPLAIN))
    asked = pl.format(f"{chat.CONTEXT}{chat.QUESTION}{{}}", "context", "question", told)
    decided = pl.format(chat.DECIDED, "decision", "long_answer")
    answered = pl.when(decides).then(decided).otherwise(pl.col("long_answer"))

    def said(role: str, content: pl.Expr) -> pl.Expr:
        return pl.struct(role=pl.lit(role), content=content)

    return rows.with_columns(
        example_id=pl.Series(ids, dtype=pl.String),
        messages=pl.concat_list(said("user", asked), said("assistant", answered)),
    ).select(TrainingExample.create_empty().columns)
