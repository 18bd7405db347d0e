"""The corpus stage: from preferred questions to answers, their evaluation, and the corpus to train on."""

from collections.abc import Iterator
from typing import Any

import dagster as dg
import polars as pl
from pydantic import Field

from mkailin_assets.checkpoints import trained_generator
from mkailin_assets.corpus import answers, distilled
from mkailin_assets.corpus.assembly import CorpusRules, assemble, examples, in_batches, streamed
from mkailin_assets.corpus.coverage import Coverage, mesh_coverage, thinnest
from mkailin_assets.corpus.coverage_picture import alt_text, coverage_picture
from mkailin_assets.corpus.entailment import entailments
from mkailin_assets.corpus.lengths import corpus_lengths as count_lengths
from mkailin_assets.corpus.lengths import tokenizer_of
from mkailin_assets.corpus.quality import QualityRules, evaluate
from mkailin_assets.corpus.recalls import corpus_fingerprint, ledger, recalls
from mkailin_assets.corpus.signals import SIGNALS, heading_specificity, spread_of
from mkailin_assets.corpus.tables import (
    CorpusExclusion,
    CorpusLength,
    CorpusRecall,
    CoverageGap,
    DistilledContexts,
    DistilledQuestion,
    EvaluatedQA,
    GeneratedQA,
    MeshCoverage,
    TrainingExample,
    kind_of,
)
from mkailin_assets.evaluation.benchmark_files import benchmark_items
from mkailin_assets.generations import corpus_cost, generation_metadata
from mkailin_assets.gpu import ON_GPU
from mkailin_assets.mesh.hierarchy import names_of
from mkailin_assets.metadata import bars, counts, histogram, picture, preview
from mkailin_assets.partitions import ALL_PARTITIONS, MESH_BRANCH_NAMES, mesh_branches
from mkailin_assets.preferences.cold_start import ColdStartRules, question_scores, similarity_from
from mkailin_assets.preferences.mentions import Mentions
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
    code_version="5",
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
    **ON_GPU,
    partitions_def=mesh_branches,
    group_name="corpus",
    kinds={"polars"},
    code_version="5",
)
def evaluated_qa(  # noqa: PLR0917 (Dagster reads an asset's inputs from its parameters)
    context: dg.AssetExecutionContext,
    generated_qa: pl.DataFrame,
    distilled_contexts: pl.DataFrame,
    question_preferences: pl.DataFrame,
    mesh_descriptors: pl.DataFrame,
    mesh_information_content: pl.DataFrame,
    mesh_rules: dg.ResourceParam[ColdStartRules],
    quality_rules: dg.ResourceParam[QualityRules],
    entailment_model: dg.ResourceParam[TextGenerator | None],
    generation: Generation,
) -> dg.Output[pl.DataFrame]:
    """Every generated pair with its quality signals and a verdict with all its reasons."""
    ask = generation.asking(context)
    judged = entailments(generated_qa, entailment_model, ask)
    ic = mesh_information_content.select("descriptor_ui", f"{mesh_rules.ic_source}_ic").iter_rows()
    specificity = heading_specificity(Mentions(names_of(mesh_descriptors)), dict(ic))
    evaluated = evaluate(
        generated_qa, distilled_contexts, question_preferences, judged, specificity, quality_rules
    )
    asked = generation_metadata(ask.tallies, generation) if ask.tallies else {}
    return dg.Output(evaluated, metadata=_evaluated_metadata(evaluated) | asked)


@dg.multi_asset(
    outs={
        "training_corpus": dg.AssetOut(
            **table(TrainingExample),
            description="Pairs of all branches to train on: deduplicated, decontaminated, balanced, split.",
            group_name="corpus",
            kinds={"polars"},
            code_version="3",
        ),
        "corpus_exclusions": dg.AssetOut(
            **table(CorpusExclusion),
            description="Every pair that stays out of the training corpus, with the stage and the reason.",
            group_name="corpus",
            kinds={"polars"},
            code_version="3",
        ),
    },
    ins={"evaluated_qa": ALL_PARTITIONS},
)
def assembled_corpus(  # noqa: PLR0917 (Dagster reads an asset's inputs from its parameters)
    evaluated_qa: dict[str, pl.LazyFrame],
    current_citations: pl.DataFrame,
    benchmarks: BenchmarkFiles,
    corpus_rules: dg.ResourceParam[CorpusRules],
    storage: Storage,
    generation: Generation,
) -> Iterator[dg.Output[pl.LazyFrame] | dg.Output[pl.DataFrame]]:
    """One corpus from the evaluated pairs of the branches that exist, and what stayed out of it."""
    benchmark = benchmark_items(benchmarks)
    assembly = assemble(evaluated_qa, current_citations, benchmark.table, corpus_rules)
    name = corpus_fingerprint(assembly.kept)
    # Before the corpus: killed in between, there is a ledger too many, and never a corpus without one.
    storage.write_table(ledger(assembly.kept), LEDGER, name)
    missing = [branch for branch in MESH_BRANCH_NAMES if branch not in evaluated_qa]
    about: dict[str, Any] = {
        "corpus": name,
        "pairs_evaluated": assembly.kept.height + assembly.exclusions.height,
        "branches": len(evaluated_qa),
        "branches_without_pairs": f"{len(missing)} of {len(MESH_BRANCH_NAMES)}: {', '.join(missing)}",
        "benchmark_items": counts(benchmark.table.unique(["benchmark", "item"]), "benchmark"),
        "refused_benchmark_items": benchmark.refused,
    }
    corpus = streamed(
        lambda: examples(evaluated_qa, assembly.kept, corpus_rules), TrainingExample.create_empty().schema
    )
    metadata = about | _corpus_metadata(assembly.kept) | corpus_cost(generation)
    yield dg.Output(corpus, "training_corpus", metadata=metadata)
    yield dg.Output(
        assembly.exclusions, "corpus_exclusions", metadata=about | _exclusion_metadata(assembly.exclusions)
    )


class LengthConfig(dg.Config):
    """How the texts of the corpus are packed for counting."""

    sequence_length: int = Field(8192, ge=64, description="Tokens of a packed sequence")


@dg.asset(**table(CorpusLength), group_name="corpus", kinds={"huggingface"}, code_version="1")
def corpus_lengths(
    training_corpus: pl.LazyFrame, tokenizer: dg.ResourceParam[str], config: LengthConfig
) -> dg.Output[pl.DataFrame]:
    """Tokens of the corpus by the tokenizer of what is trained, and the sequences they fill when packed."""
    read, name = tokenizer_of(training_corpus, tokenizer)
    lengths = count_lengths(in_batches(training_corpus), read, name, config.sequence_length)
    return dg.Output(lengths, metadata=_length_metadata(lengths))


@dg.multi_asset(
    outs={
        "mesh_coverage": dg.AssetOut(
            **table(MeshCoverage),
            description="How the corpus covers the MeSH tree, by branch and by depth, beside PubMed itself.",
            group_name="corpus",
            kinds={"polars"},
            code_version="1",
        ),
        "coverage_gaps": dg.AssetOut(
            **table(CoverageGap),
            description="What PubMed has and the corpus lacks, with citations that could fill it.",
            group_name="corpus",
            kinds={"polars"},
            code_version="1",
        ),
    },
    ins={"branch_citations": ALL_PARTITIONS, "evaluated_qa": ALL_PARTITIONS},
)
def covered_mesh(  # noqa: PLR0917 (Dagster reads an asset's inputs from its parameters)
    training_corpus: pl.LazyFrame,
    branch_citations: dict[str, pl.LazyFrame],
    evaluated_qa: dict[str, pl.LazyFrame],
    current_citations: pl.LazyFrame,
    mesh_descriptors: pl.DataFrame,
    mesh_information_content: pl.DataFrame,
) -> Iterator[dg.Output[pl.DataFrame]]:
    """How the corpus covers the MeSH tree, and what could fill its gaps."""
    coverage = mesh_coverage(
        training_corpus.select("pmid", "branch"),
        current_citations,
        branch_citations=branch_citations,
        evaluated=evaluated_qa,
        descriptors=mesh_descriptors,
        information_content=mesh_information_content,
        branches=MESH_BRANCH_NAMES,
    )
    about = _coverage_metadata(coverage)
    yield dg.Output(coverage.places, "mesh_coverage", metadata=about)
    yield dg.Output(coverage.gaps, "coverage_gaps", metadata=_gap_metadata(coverage))


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
    failed = questions.filter(pl.col("question").is_null()).select(kind_of("failure"))
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
    failed = generated.filter(pl.col("failure").is_not_null()).select(kind_of("failure"))
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
    against = dropped.select(pl.col("reasons").explode(empty_as_null=False)).select(kind_of("reasons"))
    return {
        "pairs": evaluated.height,
        "kept": evaluated.height - dropped.height,
        "dropped": counts(against, "reasons"),
        "answer_support": histogram("Answers that rest on their contexts", support, "share of content words"),
        "found_their_source": evaluated["source_rank"].is_not_null().sum(),
        "entailment": counts(evaluated.filter(pl.col("entailment").is_not_null()), "entailment"),
        "not_judged": counts(
            evaluated.filter(pl.col("entailment_failure").is_not_null()).select(
                kind_of("entailment_failure")
            ),
            "entailment_failure",
        ),
        "signals": preview(
            pl.concat(evaluated.select(signal=pl.lit(name), **spread_of(name)) for name in SIGNALS),
            rows=len(SIGNALS),
        ),
        "preview": preview(evaluated.select("pmid", "question", "decision", "answer_support", "reasons")),
    }


def _corpus_metadata(kept: pl.DataFrame) -> dict[str, Any]:
    return {
        "splits": counts(kept, "split"),
        "decisions": counts(kept, "decision"),
        "by_branch": bars("Training examples by MeSH branch", counts(kept, "branch")),
        "characters_to_read": int(kept["characters"].sum()),
        "preview": preview(kept.select("pmid", "branch", "split", "question", "decision")),
    }


def _length_metadata(lengths: pl.DataFrame) -> dict[str, Any]:
    summed = lengths.group_by("form", maintain_order=True).agg(pl.col("tokens", "sequences").sum())
    return {
        "tokenizer": lengths["tokenizer"][0],
        **{f"{form}_tokens": tokens for form, tokens, _ in summed.iter_rows()},
        **{f"{form}_sequences": sequences for form, _, sequences in summed.iter_rows()},
        "lengths": preview(lengths, rows=lengths.height),
    }


def _coverage_metadata(coverage: Coverage) -> dict[str, Any]:
    places = coverage.places
    shown = picture(coverage_picture(places), alt_text(places))
    columns = ("place", "name", "pubmed_citations", "citations", "examples", "ratio", "untried")
    short = thinnest(places, len(MESH_BRANCH_NAMES))
    return {
        "icicle": shown,
        "thinnest_branches": ", ".join(short) or "none",
        "to_fill_them": "switch the sensor fill_thinnest_branches on, or launch the job fill_branch for them",
        "unknown_headings": coverage.sources.unknown,
        "not_gathered": coverage.not_gathered,
        "branches": preview(places.filter(level="branch").select(columns), rows=len(MESH_BRANCH_NAMES)),
        "depths": preview(places.filter(level="depth"), rows=20),
    }


def _gap_metadata(coverage: Coverage) -> dict[str, Any]:
    gaps = coverage.gaps
    return {
        "gaps": coverage.gaps_in_all,
        "listed": gaps.height,
        "by_home_branch": counts(gaps, "home_branch"),
        "largest": preview(
            gaps.select("name", "pubmed_citations", "corpus_citations", "missing", "home_branch", "pmids"),
            rows=25,
        ),
    }


def _exclusion_metadata(exclusions: pl.DataFrame) -> dict[str, Any]:
    return {
        "by_stage": bars("Pairs that stay out, by stage", counts(exclusions, "stage")),
        "by_reason": counts(exclusions.with_columns(kind_of("reason")), "reason"),
        "by_benchmark": counts(exclusions.filter(pl.col("benchmark").is_not_null()), "benchmark"),
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
