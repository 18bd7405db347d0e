"""The jobs a person launches from the UI and `make distill` runs in this order; what runs by itself."""

import json
from collections.abc import Iterator
from typing import cast

import dagster as dg

from mkailin_assets.corpus.coverage import thinnest
from mkailin_assets.freshness import Freshness
from mkailin_assets.partitions import (
    MESH_BRANCH_NAMES,
    PARTITION_TAG,
    PUBMED_FILES,
    RANGE_TAGS,
    pubmed_files,
    unbroken,
)
from mkailin_assets.pubmed.arrivals import arrivals
from mkailin_resources.nlm import NlmServers
from mkailin_resources.storage import Storage

# New files are looked for this often, and so many are at most under way.
_LOOK_EVERY_S = 300
_IN_QUEUE = 20
# Branches that are filled after each look at the coverage.
_FILLED_AT_ONCE = 5
_UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
]

mesh_job = dg.define_asset_job(
    "mesh",
    selection=dg.AssetSelection.assets("mesh_release", "mesh_descriptors"),
    description="Fetch and parse one year of MeSH.",
)
mesh_migration_job = dg.define_asset_job(
    "mesh_migration",
    selection=dg.AssetSelection.assets("mesh_migration", "citation_moves"),
    description="What another year of MeSH would change; nothing is rebuilt.",
)
pubmed_file_job = dg.define_asset_job(
    "pubmed_file",
    selection=dg.AssetSelection.assets("raw_pubmed", "pubmed_citations"),
    description="Fetch and parse one PubMed file.",
)
resolve_job = dg.define_asset_job(
    "resolve",
    selection=dg.AssetSelection.assets(
        "current_citations",
        "quarantined_records",
        "mesh_information_content",
        "retriever_checkpoint",
        "context_index",
    ),
    description="Bring the state of every citation, information content and the index up to date.",
)
daily_job = dg.define_asset_job(
    "daily",
    selection=mesh_job.selection | resolve_job.selection,
    description="What the schedule brings up to date: MeSH, and what reads all PubMed files.",
)
branch_text_job = dg.define_asset_job(
    "branch_text",
    selection=dg.AssetSelection.assets("branch_citations"),
    description="Gather the citations of MeSH branches, any number in one pass.",
)
generators_job = dg.define_asset_job(
    "generators",
    selection=dg.AssetSelection.assets("question_exemplars", "domain_generator", "general_generator"),
    description="Tune the two question generators on exemplars, and try them.",
)
candidates_job = dg.define_asset_job(
    "candidates",
    selection=dg.AssetSelection.assets("candidate_questions", "candidate_contexts", "cold_start_preferences"),
    description="Two questions for each citation of a MeSH branch, and which one MeSH prefers.",
)
evaluator_job = dg.define_asset_job(
    "evaluator",
    selection=dg.AssetSelection.assets("evaluator_checkpoint"),
    description="Teach an evaluator what MeSH prefers, and measure it.",
)
preferences_job = dg.define_asset_job(
    "preferences",
    selection=dg.AssetSelection.assets("question_preferences"),
    description="The evaluator's preferences over the candidates of a MeSH branch.",
)
champion_job = dg.define_asset_job(
    "champion",
    selection=dg.AssetSelection.assets("preferred_generator", "question_champion"),
    description="Optimize a generator on the preferences, and choose who asks the questions of the corpus.",
)
distill_branch_job = dg.define_asset_job(
    "distill_branch",
    selection=candidates_job.selection
    | preferences_job.selection
    | dg.AssetSelection.assets("distilled_questions", "distilled_contexts", "generated_qa", "evaluated_qa"),
    description="From the citations of one MeSH branch to its evaluated question-answer pairs.",
)
fill_branch_job = dg.define_asset_job(
    "fill_branch",
    selection=branch_text_job.selection | distill_branch_job.selection,
    description="Gather the citations of a MeSH branch and distil them: what fills a gap of the corpus.",
)
learn_job = dg.define_asset_job(
    "learn",
    selection=dg.AssetSelection.assets(
        "training_corpus",
        "corpus_exclusions",
        "corpus_lengths",
        "corpus_recalls",
        "mesh_coverage",
        "coverage_gaps",
        "pretrained_checkpoint",
        "finetuned_checkpoint",
        "benchmark_answers",
        "benchmark_report",
        "benchmark_comparisons",
        "retrieval_report",
        "evaluator_audit",
    ),
    description="Assemble the corpus over all branches, train on it, and measure.",
)
ablation_job = dg.define_asset_job(
    "ablation",
    selection=dg.AssetSelection.assets("ablated_corpus", "ablated_checkpoint"),
    description="The corpus and the model with one agent taken out, at an equal budget of tokens.",
)
ablation_report_job = dg.define_asset_job(
    "compare_ablations",
    selection=dg.AssetSelection.assets("ablation_report"),
    description="What each agent is worth: the ablated models beside the one with all agents.",
)
release_job = dg.define_asset_job(
    "release",
    selection=dg.AssetSelection.assets("corpus_release", "release_recalls"),
    description="The corpus as a folder to publish, and what PubMed has taken back of earlier ones.",
)

jobs = [
    mesh_job,
    mesh_migration_job,
    pubmed_file_job,
    resolve_job,
    daily_job,
    branch_text_job,
    generators_job,
    candidates_job,
    evaluator_job,
    preferences_job,
    champion_job,
    distill_branch_job,
    fill_branch_job,
    learn_job,
    ablation_job,
    ablation_report_job,
    release_job,
]


@dg.asset_sensor(
    asset_key=dg.AssetKey("mesh_coverage"),
    job=fill_branch_job,
    default_status=dg.DefaultSensorStatus.STOPPED,
    description="Switched on, it gathers and distils the branches that the corpus covers the thinnest, "
    f"{_FILLED_AT_ONCE} after each materialization of mesh_coverage.",
)
def fill_thinnest_branches(
    context: dg.SensorEvaluationContext, asset_event: dg.EventLogEntry, storage: Storage
) -> dg.SensorResult | dg.SkipReason:
    """One click on its switch closes gaps of the corpus; the next coverage tells what is left."""
    coverage = storage.read_table("mesh_coverage")
    branches = [] if coverage is None else thinnest(coverage, _FILLED_AT_ONCE)
    if not branches:
        return dg.SkipReason("no branch falls short of PubMed's share with citations left to distil")
    return dg.SensorResult(
        run_requests=[
            dg.RunRequest(run_key=f"{asset_event.run_id} {branch}", partition_key=branch)
            for branch in branches
        ]
    )


def daily(schedule: str, follows_nlm: bool) -> tuple[list[dg.SensorDefinition], list[dg.ScheduleDefinition]]:
    """What keeps up with PubMed by itself; `schedule` says when (cron), empty for never.

    A sensor fetches and parses each new file; at the time of the schedule the state of every citation,
    information content and the index are brought up to date, and after that the branches that a person has
    materialized before. `follows_nlm`: whether NLM's files are the corpus, or a query is.
    """
    is_on = bool(schedule)
    sensor_on = dg.DefaultSensorStatus.RUNNING if is_on else dg.DefaultSensorStatus.STOPPED
    schedule_on = dg.DefaultScheduleStatus.RUNNING if is_on else dg.DefaultScheduleStatus.STOPPED

    @dg.sensor(
        job=pubmed_file_job,
        minimum_interval_seconds=_LOOK_EVERY_S,
        default_status=sensor_on,
        description="Fetch and parse each new file on NLM's server; retire the files of an earlier year.",
    )
    def new_pubmed_files(
        context: dg.SensorEvaluationContext, nlm: NlmServers
    ) -> dg.SensorResult | dg.SkipReason:
        if not follows_nlm:
            return dg.SkipReason("the corpus is that of a query: `make distill` asks for it again")
        registered = context.instance.get_dynamic_partitions(PUBMED_FILES)
        parsed = context.instance.get_materialized_partitions(dg.AssetKey("pubmed_citations"))
        unfinished = context.instance.get_runs(
            dg.RunsFilter(job_name=pubmed_file_job.name, statuses=_UNFINISHED)
        )
        under_way = {run.tags.get(PARTITION_TAG, "") for run in unfinished}
        attempts: dict[str, int] = json.loads(context.cursor or "{}")
        offered = [(file.key, file.directory) for file in nlm.list_pubmed_files()]
        found = arrivals(
            offered, registered, parsed, attempts=attempts, under_way=under_way, at_most=_IN_QUEUE
        )
        if not found.to_fetch and not found.to_retire:
            failed = f"; failed too often: {', '.join(found.given_up)}" if found.given_up else ""
            return dg.SkipReason(
                f"{len(offered)} files on the server, {len(under_way)} under way, none new{failed}"
            )
        tried = {key: attempts.get(key, 0) + 1 for key in found.to_fetch}
        return dg.SensorResult(
            run_requests=[
                dg.RunRequest(run_key=f"{key} {attempt}", partition_key=key) for key, attempt in tried.items()
            ],
            dynamic_partitions_requests=[
                pubmed_files.build_add_request(found.to_fetch),
                pubmed_files.build_delete_request(found.to_retire),
            ],
            cursor=json.dumps({key: n for key, n in (attempts | tried).items() if key not in parsed}),
        )

    @dg.schedule(
        job=daily_job,
        cron_schedule=schedule or "0 5 * * *",
        default_status=schedule_on,
        description="Bring up to date what reads all PubMed files, where one of them is new; MeSH at first.",
    )
    def daily_resolve(
        context: dg.ScheduleEvaluationContext, storage: Storage
    ) -> dg.RunRequest | dg.SkipReason:
        if not context.instance.get_materialized_partitions(dg.AssetKey("pubmed_citations")):
            return dg.SkipReason("no PubMed file is parsed yet")
        chosen = context.repository_def.get_job(daily_job.name).asset_layer.selected_asset_keys
        freshness = Freshness(context.repository_def.asset_graph, context.instance, storage)
        stale = freshness.out_of_date([key.to_user_string() for key in chosen], None)
        if not stale:
            return dg.SkipReason("no PubMed file has changed")
        return dg.RunRequest(asset_selection=[dg.AssetKey(name) for name in stale])

    @dg.run_status_sensor(
        run_status=dg.DagsterRunStatus.SUCCESS,
        monitored_jobs=[daily_job, resolve_job],
        request_job=branch_text_job,
        default_status=sensor_on,
        description="Gather again the citations of the branches that were gathered before.",
    )
    def branches_after_resolve(
        context: dg.RunStatusSensorContext, storage: Storage
    ) -> Iterator[dg.RunRequest]:
        defined = cast(dg.RepositoryDefinition, context.repository_def)
        freshness = Freshness(defined.asset_graph, context.instance, storage)
        gathered = context.instance.get_materialized_partitions(dg.AssetKey("branch_citations"))
        known = [branch for branch in MESH_BRANCH_NAMES if branch in gathered]
        for first, last in unbroken([key for key in known if freshness.reason("branch_citations", key)]):
            yield dg.RunRequest(
                run_key=f"{context.dagster_run.run_id} {first}",
                tags=dict(zip(RANGE_TAGS, (first, last), strict=True)),
            )

    return [new_pubmed_files, branches_after_resolve], [daily_resolve]
