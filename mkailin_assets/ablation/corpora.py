"""The corpus without one of the agents, made by the functions that make the corpus itself.

What is trained on changes, and nothing else: validation and test rows are those of training_corpus in every
ablation, so that all models are measured on the same, and no ablated corpus trains on what they ask.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from mkailin_assets.ablation.ablations import (
    ALL_AGENTS,
    ANOTHER_SEED,
    ASK_ANEW,
    NO_DPO,
    NO_FILTER,
    Asked,
    Branch,
)
from mkailin_assets.ablation.tables import AblatedExample
from mkailin_assets.corpus import answers, distilled
from mkailin_assets.corpus.assembly import (
    Assembly,
    CorpusRules,
    assemble,
    examples,
    in_batches,
    repeated,
    streamed,
)
from mkailin_assets.corpus.draws import split_of
from mkailin_assets.corpus.entailment import entailments
from mkailin_assets.corpus.quality import QualityRules, evaluate
from mkailin_assets.corpus.signals import Specificity
from mkailin_assets.corpus.tables import CorpusExclusion, LedgerRow
from mkailin_resources.generation import Ask
from mkailin_resources.models.interface import TextGenerator

_NO_TEXTS = pl.DataFrame(schema={"pmid": pl.Int64, "title": pl.String, "text": pl.String})
_WRITTEN = ("fingerprint", "entailment_fingerprint")


class MissingBranch(RuntimeError):
    """A branch has evaluated pairs, and a table that they were made from is gone."""


@dataclass(frozen=True)
class Lineage:
    """What the corpus was made of: a table for each branch that has one, and the corpus."""

    branch_citations: Mapping[str, pl.LazyFrame]
    candidate_questions: Mapping[str, pl.LazyFrame]
    candidate_contexts: Mapping[str, pl.LazyFrame]
    question_preferences: Mapping[str, pl.LazyFrame]
    distilled_questions: Mapping[str, pl.LazyFrame]
    evaluated_qa: Mapping[str, pl.LazyFrame]
    training_corpus: pl.LazyFrame

    def branch(self, name: str) -> Branch:
        """What a branch has of the citations of the split train; raises `MissingBranch`."""

        def trained(asset: str) -> pl.DataFrame:
            tables: Mapping[str, pl.LazyFrame] = getattr(self, asset)
            if name not in tables:
                raise MissingBranch(
                    f"evaluated_qa has the branch {name}, and {asset} has not: materialize it again"
                )
            return tables[name].filter(is_train()).collect()

        return Branch(
            trained("branch_citations"),
            trained("candidate_questions"),
            trained("candidate_contexts"),
            trained("question_preferences"),
            trained("distilled_questions"),
        )

    @property
    def has_trained_champion(self) -> bool:
        """Whether a question of the split train was asked by a trained champion."""
        tables = self.distilled_questions.values()
        asked = (rows.filter(is_train(), role=distilled.CHAMPION).head(1).collect() for rows in tables)
        return any(not rows.is_empty() for rows in asked)


@dataclass(frozen=True)
class Agents:
    """Who answers and judges; `texts` gives pmid, title and text of citations."""

    answerer: TextGenerator
    judge: TextGenerator | None
    specificity: Specificity
    rules: QualityRules
    texts: Callable[[pl.Series], pl.DataFrame]
    ask: Ask

    def pairs(self, asked: Asked, citations: pl.DataFrame, branch: str) -> pl.DataFrame:
        """`EvaluatedQA` of what is asked. Raises what `ask` raises.

        Where nothing was searched for, no rule about what a search finds judges a pair.
        """
        found = asked.contexts["contexts"].explode(empty_as_null=False).struct.field("pmid")
        texts = _NO_TEXTS if found.is_empty() else self.texts(found)
        generated = answers.generated_qa(
            asked.questions, asked.contexts, citations, texts, self.answerer, branch, self.ask
        )
        judged = entailments(generated, self.judge, self.ask)
        is_searched = asked.contexts["encoder"].is_not_null().any()
        rules = self.rules if is_searched else self.rules.model_copy(update={"max_source_rank": None})
        return evaluate(generated, asked.contexts, asked.preferences, judged, self.specificity, rules)


@dataclass(frozen=True)
class AblatedCorpus:
    """A corpus (`AblatedExample`), and what of the split train is in it and what is not.

    `train` has the columns of `LedgerRow`, `exclusions` is `CorpusExclusion`.
    """

    rows: pl.LazyFrame
    train: pl.DataFrame
    exclusions: pl.DataFrame


def is_train() -> pl.Expr:
    """Whether a citation is trained on."""
    return pl.col("pmid").map_elements(split_of, return_dtype=pl.String) == "train"


def changes_nothing(ablation: str, lineage: Lineage) -> bool:
    """Whether an ablation takes out what the corpus was made without: then it is training_corpus itself."""
    return ablation in {ALL_AGENTS, ANOTHER_SEED} or (ablation == NO_DPO and not lineage.has_trained_champion)


def ablated_corpus(  # noqa: PLR0917
    ablation: str,
    lineage: Lineage,
    agents: Agents,
    current: pl.DataFrame,
    benchmark: pl.DataFrame,
    rules: CorpusRules,
    folder: Path,
) -> AblatedCorpus:
    """The corpus without one agent; its pairs are in `folder` for as long as its rows are read.

    `current` and `benchmark` are what `assemble` takes. A question of the split train that repeats one of the
    other splits leaves, where in training_corpus the later of the two does.
    """
    if changes_nothing(ablation, lineage):
        corpus, none = lineage.training_corpus, {name: pl.lit(None, pl.String) for name in _WRITTEN}
        train = corpus.filter(split="train").select(LedgerRow.create_empty().columns).collect()
        nothing: pl.DataFrame = CorpusExclusion.create_empty()
        return AblatedCorpus(corpus.with_columns(**none), train, nothing)
    pairs = {}
    for branch in sorted(lineage.evaluated_qa):
        path = folder / f"{branch}.parquet"
        _pairs_of(ablation, branch, lineage, agents).write_parquet(path)
        pairs[branch] = pl.scan_parquet(path)
    held_out = lineage.training_corpus.filter(pl.col("split") != "train")
    assembly = not_held_out(assemble(pairs, current, benchmark, rules), held_out, rules)
    rows = streamed(
        lambda: _rows(pairs, assembly.kept, lineage.training_corpus, rules),
        AblatedExample.create_empty().schema,
    )
    return AblatedCorpus(rows, assembly.kept, assembly.exclusions)


def not_held_out(assembly: Assembly, held_out: pl.LazyFrame, rules: CorpusRules) -> Assembly:
    """Of an assembly the split train, without questions that `held_out` (`TrainingExample`) asks too."""
    kept = assembly.kept.filter(split="train")
    asked = ["pmid", "question"]
    both = pl.concat([held_out.select(asked).collect().sort("pmid"), kept.select(asked)])
    reasons = repeated(both, rules.min_duplicate_similarity).tail(kept.height)
    columns = CorpusExclusion.create_empty().columns
    none = {name: pl.lit(None, pl.String) for name in ("benchmark", "benchmark_item", "evidence")}
    out = kept.filter(reasons.is_not_null()).with_columns(
        stage=pl.lit("duplicate"), reason=reasons.drop_nulls(), **none
    )
    exclusions = pl.concat([assembly.exclusions.filter(is_train()), out.select(columns)])
    return Assembly(kept.filter(reasons.is_null()), exclusions.sort("pmid", "branch"))


def differences(ablated: pl.LazyFrame, corpus: pl.LazyFrame) -> dict[str, int]:
    """How many rows of the split train are as in the corpus, and how many differ in what; both by PMID."""
    key = ("pmid", "branch", "example_id", "example_hash")
    one, other = (rows.filter(split="train").select(key).collect() for rows in (ablated, corpus))
    both = one.join(other, on=["pmid", "branch"], how="full", suffix="_of_corpus")
    is_there, was_there = (pl.col(name).is_not_null() for name in ("pmid", "pmid_of_corpus"))
    asks_the_same = pl.col("example_id") == pl.col("example_id_of_corpus")
    reads_the_same = pl.col("example_hash") == pl.col("example_hash_of_corpus")
    counted = both.select(
        same=(asks_the_same & reads_the_same).sum(),
        other_text=(asks_the_same & ~reads_the_same).sum(),
        other_question=(~asks_the_same).sum(),
        added=(is_there & ~was_there).sum(),
        gone=(was_there & ~is_there).sum(),
    )
    return counted.row(0, named=True)


def _pairs_of(ablation: str, branch: str, lineage: Lineage, agents: Agents) -> pl.DataFrame:
    """`EvaluatedQA` of a branch: of the split train as the ablation makes them, the others as they are."""
    rows = lineage.evaluated_qa[branch].collect()
    train, others = rows.filter(is_train()), rows.filter(~is_train())
    if ablation == NO_FILTER:
        return pl.concat([unfiltered(train), others])
    tables = lineage.branch(branch)
    return pl.concat([agents.pairs(ASK_ANEW[ablation](tables), tables.citations, branch), others])


def unfiltered(pairs: pl.DataFrame) -> pl.DataFrame:
    """An `EvaluatedQA` table that has nothing against a pair with a question and an answer."""
    is_pair = pl.col("question").is_not_null() & pl.col("long_answer").is_not_null()
    nothing = pl.lit([], pl.List(pl.String))
    return pairs.with_columns(
        kept=pl.col("kept") | is_pair, reasons=pl.when(is_pair).then(nothing).otherwise("reasons")
    )


def _rows(
    pairs: Mapping[str, pl.LazyFrame], kept: pl.DataFrame, corpus: pl.LazyFrame, rules: CorpusRules
) -> Iterator[pl.DataFrame]:
    columns = AblatedExample.create_empty().columns
    for branch, rows in pairs.items():
        written = rows.select("pmid", *_WRITTEN).collect()
        for made in examples({branch: rows}, kept, rules):
            yield made.join(written, on="pmid", how="left", maintain_order="left").select(columns)
    for batch in in_batches(corpus):
        part = batch.filter(pl.col("split") != "train")
        yield part.with_columns(**{name: pl.lit(None, pl.String) for name in _WRITTEN}).select(columns)
