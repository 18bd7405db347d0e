"""The corpus stage: from preferred questions to answers, their evaluation, and the corpus to train on."""

from collections.abc import Iterator
from typing import Any

import dagster as dg
import polars as pl

from mkailin_assets.checkpoints import trained_generator
from mkailin_assets.corpus import answers, distilled
from mkailin_assets.corpus.assembly import AssemblyRules, assemble
from mkailin_assets.corpus.quality import QualityRules, evaluate
from mkailin_assets.corpus.recalls import corpus_fingerprint, ledger, recalls
from mkailin_assets.corpus.tables import (
    CorpusExclusion,
    CorpusRecall,
    DistilledContexts,
    DistilledQuestion,
    EvaluatedQA,
    GeneratedQA,
    TrainingExample,
)
from mkailin_assets.evaluation.pubmedqa import questions_of
from mkailin_assets.generations import corpus_cost, generation_metadata
from mkailin_assets.gpu import ON_GPU
from mkailin_assets.metadata import bars, counts, histogram, preview
from mkailin_assets.partitions import ALL_PARTITIONS, MESH_BRANCH_NAMES, mesh_branches
from mkailin_assets.preferences.cold_start import ColdStartRules, question_scores, similarity_from
from mkailin_assets.questions.assets import ContextConfig
from mkailin_assets.questions.contexts import find_contexts, still_found
from mkailin_assets.tables import table
from mkailin_resources.benchmarks import BenchmarkFiles
from mkailin_resources.generation import Generation
from mkailin_resources.index import ContextStore
from mkailin_resources.models.interface import TextGenerator
from mkailin_resources.storage import Storage
from mkailin_resources.trainees import Trainees

LEDGER = "corpus_ledger"


class QualityConfig(dg.Config, QualityRules):
    """What a pair must satisfy to enter the training corpus."""


class AssemblyConfig(dg.Config, AssemblyRules):
    """What the corpus looks like as a whole."""


@dg.asset(
    **table(DistilledQuestion),
    **ON_GPU,
    partitions_def=mesh_branches,
    group_name="corpus",
    kinds={"polars"},
    code_version="1",
)
def distilled_questions(  # noqa: PLR0917 (Dagster reads an asset's inputs from its parameters)
    context: dg.AssetExecutionContext,
    branch_citations: pl.DataFrame,
    candidate_questions: pl.DataFrame,
    question_preferences: pl.DataFrame,
    question_champion: pl.DataFrame,
    trainees: dg.ResourceParam[Trainees],
    generation: Generation,
    storage: Storage,
) -> dg.Output[pl.DataFrame]:
    """The question of each citation that enters the corpus, asked by the champion."""
    questions = distilled.best_of_two(question_preferences, candidate_questions, branch_citations)
    champion = question_champion.filter("is_champion").row(0, named=True)
    ask = generation.asking(context)
    if champion["uri"]:
        asker = trained_generator(champion["uri"], trainees, storage)
        questions = distilled.by_champion(questions, branch_citations, asker, context.partition_key, ask)
    metadata = _distilled_metadata(questions, champion["contestant"])
    return dg.Output(questions, metadata=metadata | generation_metadata(ask.tallies, generation))


@dg.asset(
    **table(DistilledContexts),
    partitions_def=mesh_branches,
    group_name="corpus",
    kinds={"lancedb"},
    code_version="1",
)
def distilled_contexts(  # noqa: PLR0917 (Dagster reads an asset's inputs from its parameters)
    context: dg.AssetExecutionContext,
    distilled_questions: pl.DataFrame,
    question_preferences: pl.DataFrame,
    candidate_contexts: pl.DataFrame,
    branch_citations: pl.DataFrame,
    context_index: pl.DataFrame,
    mesh_descriptors: pl.DataFrame,
    mesh_information_content: pl.DataFrame,
    context_store: ContextStore,
    mesh_rules: dg.ResourceParam[ColdStartRules],
    storage: Storage,
    config: ContextConfig,
) -> dg.Output[pl.DataFrame]:
    """The contexts of each question of the corpus, and how well they fit its citation in MeSH."""
    asked = distilled.written_by_champion(distilled_questions)
    recorded = None if config.look_again else storage.read_table("distilled_contexts", context.partition_key)
    found, scores = distilled.NOTHING_FOUND, distilled.preferred_scores(question_preferences)
    if not asked.is_empty():
        searcher = context_store.open(context_index, config.filters)
        kept = still_found(distilled.as_candidates(recorded), asked, searcher, config.k)
        found = find_contexts(asked, branch_citations, searcher, config.k, kept)
        similarity = similarity_from(mesh_descriptors, mesh_information_content, mesh_rules)
        scores = pl.concat([scores, question_scores(found, similarity)], how="diagonal")
    contexts = distilled.distilled_contexts(distilled_questions, candidate_contexts, found, scores)
    return dg.Output(contexts, metadata=_context_metadata(contexts, searched=asked.height))


@dg.asset(
    **table(GeneratedQA),
    **ON_GPU,
    partitions_def=mesh_branches,
    group_name="corpus",
    kinds={"polars"},
    code_version="4",
)
def generated_qa(  # noqa: PLR0917 (Dagster reads an asset's inputs from its parameters)
    context: dg.AssetExecutionContext,
    distilled_questions: pl.DataFrame,
    distilled_contexts: pl.DataFrame,
    branch_citations: pl.DataFrame,
    context_index: pl.DataFrame,
    answer_model: dg.ResourceParam[TextGenerator],
    context_store: ContextStore,
    generation: Generation,
) -> dg.Output[pl.DataFrame]:
    """Question, contexts, long answer, yes/no/maybe decision and evidence of each citation."""
    found = distilled_contexts["contexts"].explode(empty_as_null=False).struct.field("pmid")
    texts = context_store.open(context_index).texts(found)
    ask = generation.asking(context)
    generated = answers.generated_qa(
        distilled_questions,
        distilled_contexts,
        branch_citations,
        texts,
        answer_model,
        context.partition_key,
        ask,
    )
    metadata = _generated_metadata(generated) | generation_metadata(ask.tallies, generation)
    return dg.Output(generated, metadata=metadata)


@dg.asset(
    **table(EvaluatedQA),
    partitions_def=mesh_branches,
    group_name="corpus",
    kinds={"polars"},
    code_version="4",
)
def evaluated_qa(
    generated_qa: pl.DataFrame, distilled_contexts: pl.DataFrame, config: QualityConfig
) -> dg.Output[pl.DataFrame]:
    """Every generated pair with its quality signals and a verdict with all its reasons."""
    evaluated = evaluate(generated_qa, distilled_contexts, config)
    return dg.Output(evaluated, metadata=_evaluated_metadata(evaluated))


@dg.multi_asset(
    outs={
        "training_corpus": dg.AssetOut(
            **table(TrainingExample),
            description="Pairs of all branches to train on: deduplicated, decontaminated, balanced, split.",
            group_name="corpus",
            kinds={"polars"},
            code_version="2",
        ),
        "corpus_exclusions": dg.AssetOut(
            **table(CorpusExclusion),
            description="Every pair that stays out of the training corpus, with the stage and the reason.",
            group_name="corpus",
            kinds={"polars"},
            code_version="2",
        ),
    },
    ins={"evaluated_qa": ALL_PARTITIONS},
)
def assembled_corpus(  # noqa: PLR0917 (Dagster reads an asset's inputs from its parameters)
    evaluated_qa: dict[str, pl.LazyFrame],
    current_citations: pl.DataFrame,
    benchmarks: BenchmarkFiles,
    storage: Storage,
    generation: Generation,
    config: AssemblyConfig,
) -> Iterator[dg.Output[pl.DataFrame]]:
    """One corpus from the evaluated pairs of the branches that exist, and what stayed out of it."""
    benchmark = questions_of(benchmarks.pubmedqa)
    corpus, exclusions = assemble(evaluated_qa, current_citations, benchmark, config)
    name = corpus_fingerprint(corpus)
    # Before the corpus: killed in between, there is a ledger too many, and never a corpus without one.
    if storage.published_at(LEDGER, name) is None:
        storage.write_table(ledger(corpus), LEDGER, name)
    missing = [branch for branch in MESH_BRANCH_NAMES if branch not in evaluated_qa]
    about: dict[str, Any] = {
        "corpus": name,
        "pairs_evaluated": corpus.height + exclusions.height,
        "branches": len(evaluated_qa),
        "branches_without_pairs": f"{len(missing)} of {len(MESH_BRANCH_NAMES)}: {', '.join(missing)}",
        "benchmark_items": benchmark.height,
    }
    metadata = about | _corpus_metadata(corpus) | corpus_cost(generation)
    yield dg.Output(corpus, "training_corpus", metadata=metadata)
    yield dg.Output(exclusions, "corpus_exclusions", metadata=about | _exclusion_metadata(exclusions))


@dg.asset(
    **table(CorpusRecall), group_name="corpus", kinds={"polars"}, code_version="1", deps=["training_corpus"]
)
def corpus_recalls(current_citations: pl.DataFrame, storage: Storage) -> dg.Output[pl.DataFrame]:
    """Rows of every corpus published so far whose source or context PubMed has since taken back."""
    ledgers = ledgers_of(storage)
    recalled = recalls(ledgers, current_citations, storage.read_table("corpus_recalls"))
    return dg.Output(recalled, metadata={"corpora": len(ledgers), **_recall_metadata(recalled)})


def ledgers_of(storage: Storage) -> dict[str, pl.LazyFrame]:
    """The ledger of each training corpus that was published, by the corpus' fingerprint."""
    folder = storage.path("tables", LEDGER)
    names = [path.stem for path in folder.iterdir() if path.suffix == ".parquet"] if folder.exists() else []
    scanned = {name: storage.scan_table(LEDGER, name) for name in sorted(names)}
    return {name: rows for name, rows in scanned.items() if rows is not None}


def _distilled_metadata(questions: pl.DataFrame, champion: str) -> dict[str, Any]:
    asked = questions.filter(pl.col("question").is_not_null())
    failed = questions.filter(pl.col("question").is_null()).select(_kind("failure"))
    return {
        "citations": questions.height,
        "questions": asked.height,
        "champion": champion,
        "chosen_by": counts(asked, "chosen_by"),
        "asked_by": counts(asked, "generator"),
        "failures": counts(failed, "failure"),
        "preview": preview(asked.select("pmid", "chosen_by", "question")),
    }


def _context_metadata(contexts: pl.DataFrame, searched: int) -> dict[str, Any]:
    scores = contexts["mesh_score"].drop_nulls().to_list()
    return {
        "questions": contexts["question"].drop_nulls().len(),
        "searched": searched,
        "mean_mesh_score": contexts["mesh_score"].mean(),
        "mesh_scores": histogram("How well contexts fit their citation", scores, "MeSH score"),
        "without_contexts": counts(contexts.filter(pl.col("failure").is_not_null()), "failure"),
    }


def _generated_metadata(generated: pl.DataFrame) -> dict[str, Any]:
    answered = generated.filter(pl.col("failure").is_null())
    failed = generated.filter(pl.col("failure").is_not_null()).select(_kind("failure"))
    return {
        "citations": generated.height,
        "answered": answered.height,
        "failures": counts(failed, "failure"),
        "decisions": bars("Decisions", counts(answered, "decision")),
        "questions_by": counts(answered, "generator"),
        "answers_by": counts(answered, "answerer"),
        "preview": preview(answered.select("pmid", "question", "decision", "long_answer")),
    }


def _evaluated_metadata(evaluated: pl.DataFrame) -> dict[str, Any]:
    support = evaluated["answer_support"].drop_nulls().to_list()
    dropped = evaluated.filter(~pl.col("kept"))
    against = dropped.select(pl.col("reasons").explode(empty_as_null=False)).select(_kind("reasons"))
    return {
        "pairs": evaluated.height,
        "kept": evaluated.height - dropped.height,
        "dropped": counts(against, "reasons"),
        "answer_support": histogram("Answers that rest on their contexts", support, "share of content words"),
        "found_their_source": evaluated["source_rank"].is_not_null().sum(),
        "preview": preview(evaluated.select("pmid", "question", "decision", "answer_support", "reasons")),
    }


def _corpus_metadata(corpus: pl.DataFrame) -> dict[str, Any]:
    return {
        "splits": counts(corpus, "split"),
        "decisions": counts(corpus, "decision"),
        "by_branch": bars("Training examples by MeSH branch", counts(corpus, "branch")),
        "characters_to_read": int(corpus["pretraining_text"].str.len_chars().sum()),
        "preview": preview(corpus.select("pmid", "split", "question", "decision", "long_answer")),
    }


def _exclusion_metadata(exclusions: pl.DataFrame) -> dict[str, Any]:
    reason = _kind("reason").str.replace(r"PMID \d+", "another PMID")
    return {
        "by_stage": bars("Pairs that stay out, by stage", counts(exclusions, "stage")),
        "by_reason": counts(exclusions.with_columns(reason), "reason"),
        "preview": preview(exclusions.filter(pl.col("question").is_not_null())),
    }


def _recall_metadata(recalled: pl.DataFrame) -> dict[str, Any]:
    return {
        "recalls": recalled.height,
        "rows_recalled": recalled.select("corpus", "example_id").n_unique(),
        "by_corpus": counts(recalled, "corpus"),
        "by_reason": counts(recalled, "reason"),
        "preview": preview(recalled),
    }


def _kind(column: str) -> pl.Expr:
    """The reason alone, without the text it is about."""
    return pl.col(column).str.split(": ").list.first()
