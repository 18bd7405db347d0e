"""From the evaluated pairs of all branches to one corpus to train on, and what stays out of it.

In two passes, since the texts of a large corpus fit no memory: the first reads every pair and keeps what
decides about it, the second writes the examples of those that stay.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from mkailin_assets.corpus.balance import (
    BranchBalance,
    over_represented_branches,
    over_represented_decisions,
)
from mkailin_assets.corpus.decontamination import (
    LEAK,
    Decontaminator,
    fingerprints_of,
    leaks,
    normalised,
)
from mkailin_assets.corpus.draws import split_of
from mkailin_assets.corpus.duplicates import duplicates
from mkailin_assets.corpus.recalls import citations_of, taken_back
from mkailin_assets.corpus.signals import copied_shares, words
from mkailin_assets.corpus.tables import (
    SPLITS,
    CorpusExclusion,
    LedgerRow,
    TrainingExample,
)
from mkailin_assets.corpus.texts import example_hash, example_texts

ROWS_AT_ONCE = 5_000
_NO_HIT = ("benchmark", "benchmark_item", "evidence")
# What of an example may give a benchmark away, beside the citations it was made from.
_READ = ("example_id", "pmid", "split", "question", "context", "long_answer", "pretraining_text")


class CorpusRules(BaseModel):
    """What the corpus looks like as a whole."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_context_characters: int = Field(
        6000, ge=100, description="Longer contexts are cut at a word, in the instruction pair"
    )
    min_duplicate_similarity: float = Field(
        0.8, ge=0.5, le=1, description="Jaccard similarity of two questions from which the later one leaves"
    )
    branch_balance: BranchBalance = Field(
        "proportional", description="Places of a branch: by its rows, by their square root, or uniform"
    )
    max_examples: int | None = Field(None, ge=1, description="Examples in all; unset: as many as there are")
    max_branch_examples: int | None = Field(None, ge=1, description="Examples of one branch at most")
    max_decision_share: float = Field(
        0.9, gt=0, le=1, description="Largest share of the most frequent decision; 1: as it comes"
    )


class PairsChanged(RuntimeError):
    """The pairs of a branch were made again while the corpus was put together."""

    def __init__(self, branch: str) -> None:
        super().__init__(
            f"evaluated_qa, partition {branch}: it changed while the corpus was put together; "
            "materialize training_corpus again once no run makes it"
        )


@dataclass(frozen=True)
class Assembly:
    """Which pairs are the corpus, and which are not.

    `kept` has the columns of `LedgerRow`, decision and `characters` (of the text to pre-train on), by PMID;
    `exclusions` is `CorpusExclusion`, by PMID.
    """

    kept: pl.DataFrame
    exclusions: pl.DataFrame


def assemble(
    evaluated: Mapping[str, pl.LazyFrame],
    current: pl.DataFrame,
    benchmark: pl.DataFrame,
    rules: CorpusRules,
) -> Assembly:
    """Which of the pairs are trained on.

    `evaluated` holds an `EvaluatedQA` table for each branch, `current` is `CurrentCitation`, `benchmark` has
    the columns `BENCHMARK`. Every pair is kept, or excluded with the first stage that refused it and why.
    Earlier PMIDs win over later duplicates, and the places that balance leaves go by a hash of the PMID, so
    that growth moves little. Memory grows with questions and citations, not with texts.
    """
    surveyed = _surveyed(evaluated, current, benchmark, rules)
    rows = pl.concat([_nothing_surveyed(), *surveyed]).sort("pmid", "branch")
    size, cap = rules.max_examples, rules.max_branch_examples
    stages: tuple[tuple[str, Callable[[pl.DataFrame], pl.Series]], ...] = (
        ("duplicate", lambda left: repeated(left, rules.min_duplicate_similarity)),
        ("balance", lambda left: over_represented_branches(left, rules.branch_balance, size, cap)),
        ("balance", lambda left: over_represented_decisions(left, rules.max_decision_share)),
    )
    excluded, rows = [rows.filter(pl.col("stage").is_not_null())], rows.filter(pl.col("stage").is_null())
    for stage, refuse in stages:
        reasons = refuse(rows)
        out = rows.filter(reasons.is_not_null())
        excluded.append(out.with_columns(stage=pl.lit(stage), reason=reasons.drop_nulls()))
        rows = rows.filter(reasons.is_null())
    exclusions = pl.concat(part.select(CorpusExclusion.create_empty().columns) for part in excluded)
    kept = rows.select(*LedgerRow.create_empty().columns, "decision", "characters")
    return Assembly(kept, exclusions.sort("pmid", "branch"))


def examples(
    evaluated: Mapping[str, pl.LazyFrame], kept: pl.DataFrame, rules: CorpusRules
) -> Iterator[pl.DataFrame]:
    """The `TrainingExample` rows of the pairs in `kept`, some thousand at a time, by branch and PMID.

    Raises `PairsChanged` where `evaluated` no longer holds them as they were when `kept` was decided.
    """
    for branch in sorted(evaluated):
        wanted = kept.filter(branch=branch).select("pmid", "example_hash")
        found = 0
        try:
            for rows in in_batches(evaluated[branch]):
                chosen = rows.join(wanted, on="pmid", how="semi", maintain_order="left")
                made = _as_examples(chosen.with_columns(branch=pl.lit(branch)), rules).drop("title")
                same = made.join(wanted, on=["pmid", "example_hash"], how="semi", maintain_order="left")
                found += same.height
                if not same.is_empty():
                    yield TrainingExample.validate(same)
        except pl.exceptions.PolarsError as error:
            raise PairsChanged(branch) from error
        if found < wanted.height:
            raise PairsChanged(branch)


def streamed(parts: Callable[[], Iterator[pl.DataFrame]], schema: pl.Schema) -> pl.LazyFrame:
    """A table that is made part by part when it is written or asked for, and never lies in memory whole."""
    from polars.io.plugins import register_io_source

    def read(
        columns: list[str] | None, predicate: pl.Expr | None, rows: int | None, _: int | None
    ) -> Iterator[pl.DataFrame]:
        for part in parts():
            asked = part if predicate is None else part.filter(predicate)
            asked = asked if rows is None else asked.head(rows)
            yield asked if columns is None else asked.select(columns)
            rows = None if rows is None else rows - asked.height
            if rows == 0:
                return

    return register_io_source(read, schema=schema)


def in_batches(rows: pl.LazyFrame, size: int = ROWS_AT_ONCE) -> Iterator[pl.DataFrame]:
    """The rows in their order, `size` at a time in memory."""
    height = int(rows.select(pl.len()).collect().item())
    for start in range(0, height, size):
        yield rows.slice(start, size).collect()


def given_away(
    examples: pl.LazyFrame, benchmark: pl.DataFrame, splits: Sequence[str] = SPLITS
) -> pl.DataFrame:
    """What of a benchmark (columns `BENCHMARK`) the rows of a `TrainingExample` table give away: `LEAK`.

    What counts is what counts for `decontamination.leaks`; every citation that a row was made from counts,
    shown or not. The rows are read in batches.
    """
    known = fingerprints_of(benchmark)
    cited = pl.col("made_of").list.eval(pl.element().struct.field("pmid"))
    # Batches of what is on disk: of a filtered table each would begin at its start.
    batches = in_batches(examples.select(*_READ, context_pmids=cited))
    found = [leaks(rows.filter(pl.col("split").is_in(splits)), known) for rows in batches]
    return pl.concat([pl.DataFrame(schema=LEAK), *found])


def _surveyed(
    evaluated: Mapping[str, pl.LazyFrame], current: pl.DataFrame, benchmark: pl.DataFrame, rules: CorpusRules
) -> Iterator[pl.DataFrame]:
    """What decides about each pair, without its texts; refused for itself or not."""
    columns, decontaminator = _nothing_surveyed().columns, Decontaminator(benchmark)
    for branch in sorted(evaluated):
        for read in in_batches(evaluated[branch]):
            # The table's own branch: a row that says another is not at home here.
            rows = read.with_columns(branch=pl.lit(branch))
            refused = _refused_by_evaluation(rows)
            yield _out(rows.filter(refused.is_not_null()), "evaluation", refused.drop_nulls()).select(columns)
            left = rows.filter(refused.is_null())
            rest = _as_examples(left, rules)
            stale, quoting = outdated(rest, current), quoting_held_out(left)
            quoting = quoting.set(stale.is_not_null(), None)
            for stage, reasons in (("source", stale), ("contamination", quoting)):
                yield _out(rest.filter(reasons.is_not_null()), stage, reasons.drop_nulls()).select(columns)
            rest = rest.filter(stale.is_null() & quoting.is_null())
            # Every citation that the answer was made from counts, those that training does not show, too.
            cited = pl.col("made_of").list.eval(pl.element().struct.field("pmid"))
            hits = decontaminator.of(rest.with_columns(text=_all_text(), context_pmids=cited))
            hit = pl.when(pl.col("reason").is_not_null()).then(pl.lit("contamination"))
            yield (
                pl.concat([rest, hits.with_columns(stage=hit)], how="horizontal")
                .with_columns(characters=pl.col("pretraining_text").str.len_chars())
                .select(columns)
            )


def _as_examples(rows: pl.DataFrame, rules: CorpusRules) -> pl.DataFrame:
    """Evaluated pairs as `TrainingExample` and `title`."""

    def example_id(pmid: int, question: str) -> str:
        return hashlib.blake2b(f"{pmid}\n{question}".encode(), digest_size=16).hexdigest()

    ids = [example_id(pmid, question) for pmid, question in rows.select("pmid", "question").iter_rows()]
    shown = without_held_out_contexts(rows.with_columns(made_of=_made_of()))
    read = example_texts(shown, rules.max_context_characters)
    return read.with_columns(
        example_hash(read),
        example_id=pl.Series(ids, dtype=pl.String),
        context_pmids=pl.col("contexts").list.eval(pl.element().struct.field("pmid")),
    ).select(*TrainingExample.create_empty().columns, "title")


def without_held_out_contexts(rows: pl.DataFrame) -> pl.DataFrame:
    """The rows with their split, those to train on without contexts of the other splits' citations.

    What a citation concludes, the answer to a held-out question, must not be read in training.
    """
    split = pl.col("pmid").map_elements(split_of, return_dtype=pl.String)
    shown = pl.element().filter(pl.element().struct.field("pmid").is_in(_trained_on(rows)))
    return rows.with_columns(split=split).with_columns(
        contexts=pl.when(pl.col("split") == "train")
        .then(pl.col("contexts").list.eval(shown))
        .otherwise("contexts")
    )


def quoting_held_out(rows: pl.DataFrame) -> pl.Series:
    """Why a row's answer gives a held-out citation away; null where it does not.

    An answer may be made from all contexts, of which training does not show those of other splits. It must
    not copy more of its words, eight in a row, where these are added to what training shows. Takes
    `EvaluatedQA`.
    """
    train = _trained_on(rows)
    one = pl.element().struct
    is_hidden = ~one.field("pmid").is_in(train)

    def contexts(which: pl.Expr) -> pl.Expr:
        read = pl.concat_str(one.field("title"), one.field("text"), separator=" ", ignore_nulls=True)
        return pl.col("contexts").list.eval(read.filter(which)).list.join(" ")

    shown = pl.concat_str(
        "source_context", "source_conclusion", contexts(~is_hidden), separator=" ", ignore_nulls=True
    )
    hidden = pl.when(pl.col("pmid").is_in(train)).then(contexts(is_hidden))
    texts = rows.select(
        answer=words(pl.col("long_answer").fill_null("")),
        shown=words(shown),
        all=words(pl.concat_str(shown, hidden, separator=" ", ignore_nulls=True)),
    )
    copied, of_shown = (copied_shares(texts["answer"], texts[given]) for given in ("all", "shown"))
    reason = pl.lit("its answer quotes a citation of another split")
    return texts.select(reason=pl.when(copied > of_shown).then(reason)).to_series()


def _trained_on(rows: pl.DataFrame) -> list[int]:
    """The PMIDs of the split train among sources and contexts."""
    found = rows["contexts"].explode(empty_as_null=False).struct.field("pmid")
    return [pmid for pmid in pl.concat([found, rows["pmid"]]).unique() if split_of(pmid) == "train"]


def outdated(rows: pl.DataFrame, current: pl.DataFrame) -> pl.Series:
    """Why a row's source or a context of it no longer stands in PubMed as it was read; null where it does.

    Every context counts that the answer was made from, those that training does not show too.
    """
    numbered = rows.with_row_index("row").select("row", "pmid", "branch", "made_of")
    cited = citations_of(numbered, ["row"])
    # Of all of PubMed, which a join would go through, what is cited here alone.
    named = current.filter(pl.col("pmid").is_in(cited["cited_pmid"].unique().implode()))
    back = taken_back(cited, named).unique("row", keep="first", maintain_order=True)
    homes = named.select("pmid", "home_branch")
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
    asked = rows.select(normalised(pl.col("question"))).to_series()
    pmids, texts = rows["pmid"], asked.to_list()

    def reason(index: int, earlier: int | None) -> str | None:
        if earlier is None:
            return None
        how = "the same" if texts[index] == texts[earlier] else "nearly the same"
        return f"asks {how} as PMID {pmids[earlier]}"

    found = enumerate(duplicates(texts, similarity))
    return pl.Series("reason", [reason(index, earlier) for index, earlier in found], dtype=pl.String)


def _nothing_surveyed() -> pl.DataFrame:
    example, exclusion = TrainingExample.create_empty(), CorpusExclusion.create_empty()
    return pl.DataFrame(
        schema={
            **{name: example.schema[name] for name in LedgerRow.create_empty().columns},
            "decision": pl.String,
            **{name: exclusion.schema[name] for name in ("stage", "reason", *_NO_HIT)},
            "characters": pl.UInt32,
        }
    )


def _out(rows: pl.DataFrame, stage: str, reasons: pl.Series) -> pl.DataFrame:
    """Rows that a stage refused, with the columns of the survey."""
    there = [name for name in ("pmid", "branch", "question") if name in rows.columns]
    return pl.concat(
        [_nothing_surveyed(), rows.select(there).with_columns(stage=pl.lit(stage), reason=reasons)],
        how="diagonal",
    )


def _made_of() -> pl.Expr:
    def citation(use: str, pmid: pl.Expr, content_hash: pl.Expr) -> pl.Expr:
        return pl.struct(use=pl.lit(use), pmid=pmid, content_hash=content_hash)

    one = pl.element().struct
    source = citation("source", pl.col("pmid"), pl.col("content_hash"))
    contexts = pl.col("contexts").list.eval(citation("context", one.field("pmid"), one.field("content_hash")))
    return pl.concat_list(source, contexts)


def _all_text() -> pl.Expr:
    return pl.concat_str("pretraining_text", "long_answer", separator="\n\n", ignore_nulls=True)


def _refused_by_evaluation(rows: pl.DataFrame) -> pl.Series:
    reasons = pl.when(~pl.col("kept")).then(pl.col("reasons").list.join("; "))
    return rows.select(reason=reasons).to_series()
