"""The ablations: the corpus and the model with one agent taken out at a time, and what that tells."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from functools import cache
from typing import Any

import dagster as dg
import polars as pl
from pydantic import Field

from mkailin_assets.ablation import corpora, models, report
from mkailin_assets.ablation.ablations import ABLATIONS, TAKEN_OUT
from mkailin_assets.ablation.tables import AblatedCheckpoint, AblatedExample, AblationResult
from mkailin_assets.checkpoints import on_storage
from mkailin_assets.corpus.assembly import CorpusRules
from mkailin_assets.corpus.quality import QualityRules
from mkailin_assets.corpus.signals import heading_specificity
from mkailin_assets.corpus.tables import kind_of
from mkailin_assets.evaluation.answers import answers_of
from mkailin_assets.evaluation.benchmark_files import benchmark_items
from mkailin_assets.evaluation.contamination import Recheck, recheck
from mkailin_assets.evaluation.contestants import Contestant, trained
from mkailin_assets.evaluation.items import CORPUS, asked_items
from mkailin_assets.evaluation.rules import EvaluationRules
from mkailin_assets.generations import generation_metadata
from mkailin_assets.gpu import ON_GPU
from mkailin_assets.mesh.hierarchy import names_of
from mkailin_assets.metadata import counts, curves, intervals, preview
from mkailin_assets.partitions import ALL_PARTITIONS
from mkailin_assets.preferences.cold_start import ColdStartRules
from mkailin_assets.preferences.mentions import Mentions
from mkailin_assets.tables import table
from mkailin_assets.training.checkpoints import RECIPE
from mkailin_assets.training.recipes import RECIPES, STAGES, Recipe, Stage, changed, recipe_of
from mkailin_resources.benchmarks import BenchmarkFiles
from mkailin_resources.compute import Compute
from mkailin_resources.generation import Generation, Tally
from mkailin_resources.index import ContextStore
from mkailin_resources.models.interface import TextGenerator
from mkailin_resources.storage import Storage

ablations = dg.StaticPartitionsDefinition(list(ABLATIONS))

_BRANCH_TABLES = [field.name for field in fields(corpora.Lineage) if field.name != "training_corpus"]


@dg.asset(
    **table(AblatedExample),
    **ON_GPU,
    partitions_def=ablations,
    ins=dict.fromkeys(_BRANCH_TABLES, ALL_PARTITIONS),
    group_name="ablation",
    kinds={"polars"},
    code_version="1",
)
def ablated_corpus(  # noqa: PLR0917 (Dagster reads an asset's inputs from its parameters)
    context: dg.AssetExecutionContext,
    branch_citations: dict[str, pl.LazyFrame],
    candidate_questions: dict[str, pl.LazyFrame],
    candidate_contexts: dict[str, pl.LazyFrame],
    question_preferences: dict[str, pl.LazyFrame],
    distilled_questions: dict[str, pl.LazyFrame],
    evaluated_qa: dict[str, pl.LazyFrame],
    training_corpus: pl.LazyFrame,
    current_citations: pl.DataFrame,
    context_index: pl.DataFrame,
    mesh_descriptors: pl.DataFrame,
    mesh_information_content: pl.DataFrame,
    answer_model: dg.ResourceParam[TextGenerator],
    entailment_model: dg.ResourceParam[TextGenerator | None],
    mesh_rules: dg.ResourceParam[ColdStartRules],
    quality_rules: dg.ResourceParam[QualityRules],
    corpus_rules: dg.ResourceParam[CorpusRules],
    benchmarks: BenchmarkFiles,
    context_store: ContextStore,
    generation: Generation,
    storage: Storage,
) -> Iterator[dg.Output[pl.LazyFrame]]:
    """The training corpus, made again with one agent taken out."""
    lineage = corpora.Lineage(
        branch_citations,
        candidate_questions,
        candidate_contexts,
        question_preferences,
        distilled_questions,
        evaluated_qa,
        training_corpus,
    )
    ask = generation.asking(context)
    ic = mesh_information_content.select("descriptor_ui", f"{mesh_rules.ic_source}_ic").iter_rows()
    specificity = heading_specificity(Mentions(names_of(mesh_descriptors)), dict(ic))
    searcher = cache(lambda: context_store.open(context_index))
    agents = corpora.Agents(
        answer_model, entailment_model, specificity, quality_rules, lambda pmids: searcher().texts(pmids), ask
    )
    benchmark = benchmark_items(benchmarks).table
    # The pairs are read from there once more, when the corpus is written.
    with storage.scratch_folder("ablated_corpus") as folder:
        made = corpora.ablated_corpus(
            context.partition_key, lineage, agents, current_citations, benchmark, corpus_rules, folder
        )
        metadata = _corpus_metadata(made, context.partition_key, training_corpus)
        asked = generation_metadata(_summed(ask.tallies), generation) if ask.tallies else {}
        yield dg.Output(made.rows, metadata=metadata | asked)


class AblationConfig(dg.Config):
    """The budget of tokens, and what a person changes of the recipe: the same for all ablations."""

    tokens: int | None = Field(
        None,
        ge=1,
        description="Tokens each of the two trainings has room for; unset: as many as the recipe's steps",
    )
    recipe: str | None = Field(None, description=f"Another recipe: {', '.join(RECIPES)}")
    seed: int | None = Field(None, description="Seed of adapters and order")
    batch_size: int | None = Field(None, ge=1, description="Sequences in memory at once")
    accumulation: int | None = Field(None, ge=1, description="Batches an optimizer step")
    learning_rate: float | None = Field(None, gt=0, description="Peak of the cosine schedule")
    max_length: int | None = Field(None, ge=64, description="Tokens of a sequence")

    def budgeted(self, recipe: Recipe) -> Recipe:
        """The recipe with what was changed of it, and a fixed number of steps; raises `NoRecipe`."""
        chosen = recipe_of(self.recipe) if self.recipe else recipe
        given = self.model_dump(include=set(Stage.model_fields), exclude_none=True)
        return models.with_budget(changed(chosen, dict.fromkeys(STAGES.values(), given)), self.tokens)


@dg.asset(
    **table(AblatedCheckpoint),
    **ON_GPU,
    partitions_def=ablations,
    group_name="ablation",
    kinds={"pytorch", "huggingface"},
    code_version=RECIPE,
)
def ablated_checkpoint(  # noqa: PLR0917 (Dagster reads an asset's inputs from its parameters)
    context: dg.AssetExecutionContext,
    ablated_corpus: pl.LazyFrame,
    pretrained_checkpoint: pl.DataFrame,
    recipe: dg.ResourceParam[Recipe],
    compute: dg.ResourceParam[Compute],
    config: AblationConfig,
    storage: Storage,
) -> dg.Output[pl.DataFrame]:
    """The base of pretrained_checkpoint, pre-trained and fine-tuned on the corpus without one agent."""
    uri, base_model = pretrained_checkpoint.select("uri", "base_model").row(0)
    wanted = models.seeded(config.budgeted(recipe), context.partition_key)
    chosen = models.on_base_of(wanted, storage.local_folder(uri))
    compute = on_storage(compute, storage)
    pretrained, finetuned = models.trained(ablated_corpus, chosen, compute, storage, context.log.info)
    checkpoint = models.ablated_checkpoint(context.partition_key, pretrained, finetuned)
    if not wanted.base:
        # By itself it has no name: it lies in that folder alone.
        checkpoint = checkpoint.with_columns(base_model=pl.lit(base_model))
    return dg.Output(checkpoint, metadata=_training_metadata(checkpoint, pretrained, finetuned))


@dg.asset(
    **table(AblationResult),
    **ON_GPU,
    ins={"ablated_corpus": ALL_PARTITIONS, "ablated_checkpoint": ALL_PARTITIONS},
    group_name="ablation",
    kinds={"pytorch", "huggingface"},
    code_version="2",
)
def ablation_report(  # noqa: PLR0917 (Dagster reads an asset's inputs from its parameters)
    context: dg.AssetExecutionContext,
    ablated_corpus: dict[str, pl.LazyFrame],
    ablated_checkpoint: dict[str, pl.DataFrame],
    training_corpus: pl.LazyFrame,
    benchmarks: BenchmarkFiles,
    evaluation_rules: dg.ResourceParam[EvaluationRules],
    vllm_arguments: dg.ResourceParam[Mapping[str, Any]],
    storage: Storage,
) -> dg.Output[pl.DataFrame]:
    """What each agent is worth: each ablated model beside the one with all agents, with 95% intervals."""
    ablated = report.Ablated.of(ablated_corpus, ablated_checkpoint, training_corpus)
    items = asked_items(benchmarks, training_corpus).table.filter(pl.col("kind").is_in([CORPUS, "pubmedqa"]))
    # One form tells what an agent is worth; the other would double the time.
    rules = evaluation_rules.model_copy(update={"forms": evaluation_rules.forms[:1]})
    answers = [
        answers_of(contestant, items, storage, rules=rules, vllm=vllm_arguments, log=context.log.info).table
        for contestant in _contestants(ablated, storage)
    ]
    results = report.results(ablated, pl.concat(answers))
    benchmark = benchmark_items(benchmarks).table
    checked = {name: recheck(ablated_corpus[name], items, benchmark) for name in ablated.names}
    text = report.render(ablated, results, checked)
    path = storage.publish_file(
        storage.path("reports", report.REPORT), lambda file: file.write(text.encode())
    )
    return dg.Output(
        results,
        metadata={"report": dg.MetadataValue.path(str(path)), **_result_metadata(ablated, results, checked)},
    )


def _contestants(ablated: report.Ablated, storage: Storage) -> Iterator[Contestant]:
    """Each model once, under the name of the first ablation that has it."""
    for name, uri in ablated.checkpoints.select("ablation", "uri").iter_rows():
        if name not in ablated.same_as:
            yield trained(storage.local_folder(uri), name)


def _summed(tallies: Sequence[Tally]) -> list[Tally]:
    """What asking came to over all branches, for each generator."""
    sums: dict[tuple[str, str], Tally] = {}
    for tally in tallies:
        key = (tally.generator, tally.prompt_version)
        whole = sums.setdefault(key, Tally(*key, requests=0))
        for field in fields(Tally)[2:]:
            setattr(whole, field.name, getattr(whole, field.name) + getattr(tally, field.name))
    return list(sums.values())


def _corpus_metadata(
    made: corpora.AblatedCorpus, ablation: str, training_corpus: pl.LazyFrame
) -> dict[str, Any]:
    changes = corpora.differences(made.train.lazy(), training_corpus)
    return {
        "taken_out": TAKEN_OUT[ablation],
        "is_training_corpus": changes["same"] == made.train.height and not changes["gone"],
        "examples_to_train_on": made.train.height,
        "beside_training_corpus": changes,
        "by_branch": counts(made.train, "branch"),
        "left_out_by_stage": counts(made.exclusions, "stage"),
        "left_out_by_reason": counts(made.exclusions.select(kind_of("reason")), "reason"),
        "preview": preview(made.train.select("pmid", "branch", "question")),
    }


def _training_metadata(
    checkpoint: pl.DataFrame, pretrained: models.Trained, finetuned: models.Trained
) -> dict[str, Any]:
    both = {"pre-training": pretrained, "fine-tuning": finetuned}
    lines = {name: zip(*one.record.course.curve.train, strict=True) for name, one in both.items()}
    return {
        "trained_now": any(one.published.trained_now for one in both.values()),
        "path": dg.MetadataValue.path(finetuned.published.uri),
        "loss": curves(
            "Loss", {name: (xs, ys) for name, (xs, ys) in lines.items()}, "optimizer step", "nats a token"
        ),
        "training_seconds": round(sum(one.record.course.seconds for one in both.values()), 1),
        "left_out": {name: one.record.left_out for name, one in both.items()},
        "preview": preview(checkpoint),
    }


def _result_metadata(
    ablated: report.Ablated, results: pl.DataFrame, checked: Mapping[str, Recheck]
) -> dict[str, Any]:
    leads = results.filter(pl.col("same_as").is_null()).drop_nulls("difference")
    pictures = {}
    for (task, metric), rows in leads.group_by("task", "metric", maintain_order=True):
        title = f"{report.measure(rows.row(0, named=True))}, difference to all agents"
        drawn = rows.select("ablation", "difference", "difference_low", "difference_high").iter_rows()
        points = {report.shown(name): (value, low, high) for name, value, low, high in drawn}
        pictures[f"{task}_{metric}"] = intervals(title, points)
    return {
        "contamination": report.contamination(checked),
        "in_short": {report.shown(name): said for name, said in report.in_short(ablated, results).items()},
        "read_this_first": f"{report.HOW} {report.by_chance(results)}",
        **pictures,
        "missing": ", ".join(ablated.missing) or "none",
        "corpora": preview(ablated.corpora, rows=len(ABLATIONS)),
        "results": preview(results, rows=results.height),
    }
