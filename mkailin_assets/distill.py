"""`make demo`, `distill`, `release`, `ablate`: bring the lineage up to date through Dagster, in this process.

What is up to date is left alone (`freshness`), so a run that was killed is taken up where it stopped.
"""

import argparse
import os
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
from dagster import DagsterInstance, DagsterRunStatus, RunsFilter
from rich.markup import escape
from rich.table import Table

from mkailin_assets import automation
from mkailin_assets.ablation.ablations import ABLATIONS
from mkailin_assets.freshness import Freshness
from mkailin_assets.generations import TABLES_OF_AGENTS
from mkailin_assets.gpu import set_pool_limit
from mkailin_assets.partitions import MESH_BRANCH_NAMES, PUBMED_FILES, RANGE_TAGS, unbroken
from mkailin_assets.progress import console
from mkailin_assets.training.recipes import recipe_of
from mkailin_resources.models.interface import ModelUnavailable
from mkailin_resources.models.model_name import ModelName
from mkailin_resources.nlm import NlmError, NlmServers
from mkailin_resources.profiles import (
    API_KEY,
    InvalidSetting,
    Settings,
    agents,
    entailment_judge,
    entrez_query,
    trainees,
)
from mkailin_resources.storage import Storage

ANSWERS_SHOWN = 3
# Their materialization needs the bases that are trained, and the model that judges.
TRAINED_AGENTS = ("domain_generator", "general_generator", "evaluator_checkpoint", "preferred_generator")
REPORTS = ("benchmark_report", "ablation_report")


class Incomplete(Exception):
    """A run failed; its error was printed when it happened."""


class Distillation:
    """One pass over the lineage: the jobs in the order data flows, each over what is out of date."""

    def __init__(self, defs: dg.Definitions, instance: DagsterInstance, settings: Settings) -> None:
        self._defs = defs
        self._instance = instance
        self._settings = settings
        self._storage = Storage(root=settings.storage)
        self._freshness = Freshness(defs.resolve_asset_graph(), instance, self._storage)
        self._seconds: dict[str, float] = {}
        self._touched: dict[str, set[str | None]] = {}
        self.failures: list[str] = []

    def check_models(self) -> None:
        """Raise `ModelUnavailable` where a model is missing that as far as is known now has to be asked."""
        models = [model for model in agents(self._settings).values() if model.is_paid]
        branches = self._branches() if models else []
        wanted: list[tuple[str, str | None]] = [(name, one) for name in TABLES_OF_AGENTS for one in branches]
        wanted.append(("benchmark_answers", None))
        if models and any(self._freshness.reason(*table) for table in wanted):
            for model in models:
                model.check()
        judge = entailment_judge(self._settings)
        if judge and any(self._freshness.reason("evaluated_qa", one) for one in self._branches()):
            judge.check()
        trained = trainees(self._settings)
        if any(self._freshness.reason(name, None) for name in TRAINED_AGENTS):
            trained.check()
        base = recipe_of(self._settings.recipe).base
        if base and self._freshness.reason("pretrained_checkpoint", None):
            trained.engine(ModelName.parse(base)).check()

    def run(self, files: Sequence[str], release: bool = False, ablate: bool = False) -> None:
        """Bring every stage up to date, the release and the ablations too if they are asked for.

        Raises `Incomplete` where what follows would have no ground.
        """
        self._stage(automation.mesh_job.name, [None])
        self._stage(automation.pubmed_file_job.name, files)
        self._require_success()
        self._stage(automation.resolve_job.name, [None])
        self._require_success()
        branches = self._branches()
        self._gather_branches(branches)
        self._require_success()
        self._stage(automation.generators_job.name, [None], is_needed=True)
        self._stage(automation.candidates_job.name, branches)
        self._stage(automation.evaluator_job.name, [None], is_needed=True)
        self._stage(automation.preferences_job.name, branches)
        self._stage(automation.champion_job.name, [None], is_needed=True)
        self._stage(automation.distill_branch_job.name, branches)
        self._stage(automation.learn_job.name, [None])
        if release:
            self._require_success()
            self._stage(automation.release_job.name, [None])
        if ablate:
            self._require_success()
            self._stage(automation.ablation_job.name, ABLATIONS)
            self._stage(automation.ablation_report_job.name, [None])

    def _stage(self, job: str, partitions: Sequence[str | None], is_needed: bool = False) -> None:
        """Materialize what is out of date; `is_needed`: nothing below can be made without it."""
        names, failed_before = self._assets_of(job), len(self.failures)
        for partition in partitions:
            for name in names:
                self._touched.setdefault(name, set()).add(partition)
            stale = self._freshness.out_of_date(names, partition)
            if stale:
                self._execute(job, stale, partition, {})
        if is_needed and len(self.failures) > failed_before:
            raise Incomplete

    def _gather_branches(self, branches: Sequence[str]) -> None:
        """Citations of all stale branches, a run for each unbroken row of them: one pass over the files."""
        job = automation.branch_text_job.name
        (name,) = self._assets_of(job)
        self._touched[name] = set(branches)
        stale = [branch for branch in branches if self._freshness.reason(name, branch)]
        for first, last in unbroken(stale):
            self._execute(job, [name], None, dict(zip(RANGE_TAGS, (first, last), strict=True)))

    def _execute(self, job: str, assets: list[str], partition: str | None, tags: dict[str, str]) -> None:
        where = partition or "-".join(sorted(set(tags.values())))
        console.print(f"[bold]{job}[/] {where}".rstrip())
        result = self._defs.resolve_job_def(job).execute_in_process(
            instance=self._instance,
            asset_selection=[dg.AssetKey(name) for name in assets],
            partition_key=partition,
            tags=tags,
            run_config={"loggers": {"progress": {}}},
            raise_on_error=False,
        )
        for step in self._instance.get_run_step_stats(result.run_id):
            if step.start_time and step.end_time:
                made = [event.asset_materialization for event in step.materialization_events]
                names = {one.asset_key.to_user_string() for one in made if one}
                for name in names:
                    share = (step.end_time - step.start_time) / len(names)
                    self._seconds[name] = self._seconds.get(name, 0.0) + share
        refused = [
            f"{check.asset_key.to_user_string()}: {check.check_name}"
            for check in result.get_asset_check_evaluations()
            if not check.passed and check.severity == dg.AssetCheckSeverity.ERROR
        ]
        if refused or not result.success:
            self.failures.append(f"{job} {where} {', '.join(refused)}".strip())

    def _require_success(self) -> None:
        if self.failures:
            raise Incomplete

    def _assets_of(self, job: str) -> list[str]:
        selected = self._defs.resolve_job_def(job).asset_layer.selected_asset_keys
        order = self._defs.resolve_asset_graph().toposorted_asset_keys
        return [key.to_user_string() for key in order if key in selected]

    def _branches(self) -> list[str]:
        """The branches asked for, else every branch that is home to a citation, in the order of the tree."""
        if self._settings.branches:
            return [branch for branch in MESH_BRANCH_NAMES if branch in self._settings.branches]
        current = self._storage.read_table("current_citations")
        homes = set() if current is None else set(current["home_branch"].drop_nulls())
        return [branch for branch in MESH_BRANCH_NAMES if branch in homes]

    def report(self) -> None:
        """What there is now: a line per asset, answers to read, and where everything lies."""
        table = Table("asset", "partitions", "rows", "seconds", title="The lineage", title_justify="left")
        for column in table.columns[1:]:
            column.justify = "right"
        for name, partitions in self._touched.items():
            rows = self._rows(name, partitions)
            done = "not made" if rows is None else "up to date"
            seconds = f"{self._seconds[name]:.1f}" if name in self._seconds else done
            table.add_row(name, str(len(partitions)), "-" if rows is None else f"{rows:,}", seconds)
        console.print(table)
        corpus = self._storage.scan_table("training_corpus")
        if corpus is not None and "training_corpus" in self._touched:
            self._show_answers(corpus)
        for what, table_name in (("checkpoint", "finetuned_checkpoint"), ("index", "context_index")):
            row = self._storage.read_table(table_name)
            if row is not None:
                say(f"{what:<12}{row['uri'][0]}")
        release = self._storage.read_table("corpus_release")
        if release is not None:
            say(f"{'release':<12}{release.filter('is_current')['uri'][0]}")
        corpus_path = self._storage.table_path("training_corpus", None)
        reports = [("report", self._storage.path("reports", f"{name}.md")) for name in REPORTS]
        for what, path in (("corpus", corpus_path), *reports):
            if path.exists():
                say(f"{what:<12}{path}")
        say(f"{'benchmark':<12}{self._settings.pubmedqa}")

    def _rows(self, name: str, partitions: set[str | None]) -> int | None:
        counts = [
            table.select(pl.len()).collect().item()
            for partition in partitions
            if (table := self._storage.scan_table(name, partition)) is not None
        ]
        return sum(counts) if counts else None

    def _show_answers(self, corpus: pl.LazyFrame) -> None:
        console.print("\n[bold]From the corpus[/]")
        shown = corpus.select("branch", "pmid", "question", "decision", "long_answer")
        first = shown.unique("branch", keep="first", maintain_order=True).head(ANSWERS_SHOWN).collect()
        for row in first.to_dicts():
            console.print(f"  [cyan]{row['branch']} PMID {row['pmid']}[/]  {escape(row['question'])}")
            decision = f"{row['decision']}: " if row["decision"] else ""
            console.print(f"    {decision}{row['long_answer'][:300]}", style="dim", markup=False)
        console.print()


def say(text: object, style: str | None = None) -> None:
    """Print as it is: paths, errors and settings are no markup."""
    console.print(str(text), style=style, markup=False)


def register_files(instance: DagsterInstance, settings: Settings) -> list[str]:
    """Make each PubMed file that is asked for a partition; returns their keys in order.

    The slices of the query, if there is one; and NLM's files, if some are named or there is no query.
    """
    keys = [part.key for part in entrez_query(settings).slices()] if settings.pubmed_query else []
    if settings.follows_nlm:
        keys += [file.key for file in _nlm(settings).list_pubmed_files()]
    instance.add_dynamic_partitions(PUBMED_FILES, keys)
    return keys


def set_up(instance: DagsterInstance, settings: Settings) -> None:
    """What each start begins with: the limit of the pool `gpu`, and an end to runs that were killed."""
    set_pool_limit(instance, settings.gpu_runs)
    close_killed_runs(instance)


def close_killed_runs(instance: DagsterInstance) -> None:
    """Mark runs whose process is gone as failed: else they show as running and hold their place for ever.

    Dagster's daemon does the same while the server that started the run lives, not after both were killed.
    """
    begun = [DagsterRunStatus.STARTING, DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING]
    for record in instance.get_run_records(RunsFilter(statuses=begun)):
        run = record.dagster_run
        pid = _pid(instance, run.run_id)
        if pid is not None and not _alive(pid, record.update_timestamp.timestamp()):
            instance.report_run_failed(run, "The process was killed; what it had published is kept.")


def _pid(instance: DagsterInstance, run_id: str) -> int | None:
    events = instance.all_logs(run_id, of_type=dg.DagsterEventType.ENGINE_EVENT)
    told = [event.dagster_event.engine_event_data.metadata for event in events if event.dagster_event]
    pids = [str(metadata["pid"].value) for metadata in told if "pid" in metadata]
    return int(pids[-1]) if pids else None


def _alive(pid: int, last_seen: float) -> bool:
    """Whether the process that had this number at that POSIX time is there."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    process = Path("/proc") / str(pid)
    # After a restart of the machine, another process may have the number.
    return not process.exists() or process.stat().st_mtime <= last_seen


def unknown_branches(branches: Sequence[str]) -> list[str]:
    """Those of the branches asked for that MeSH does not have."""
    return [branch for branch in branches if branch not in MESH_BRANCH_NAMES]


def main() -> int:
    """Exit status 0 when everything is up to date, 1 when a run failed, 2 when a setting is wrong."""
    parser = argparse.ArgumentParser(prog="python -m mkailin_assets.distill", description=__doc__)
    parser.add_argument(
        "--register-files", action="store_true", help="only make the server's PubMed files partitions"
    )
    parser.add_argument(
        "--release", action="store_true", help="end with a release of the corpus: a folder to publish"
    )
    parser.add_argument(
        "--ablate", action="store_true", help="end with models that were trained without one of the agents"
    )
    arguments = parser.parse_args()
    try:
        settings = Settings.from_environment()
    except InvalidSetting as error:
        say(error, "red")
        return 2
    if unknown := unknown_branches(settings.branches):
        say(f"MKAILIN_BRANCHES names {', '.join(unknown)}; MeSH has A01 to Z01, such as C04", "red")
        return 2
    if not os.environ.get("DAGSTER_HOME"):
        say("DAGSTER_HOME is unset: use `make demo` or `make distill`, which set it", "red")
        return 2
    if arguments.register_files:
        return _register(settings)
    return _distill(settings, arguments.release, arguments.ablate)


def _register(settings: Settings) -> int:
    with DagsterInstance.get() as instance:
        set_up(instance, settings)
        try:
            files = register_files(instance, settings)
        except NlmError as error:
            say(error, "yellow")
            return 0
    console.print(f"{len(files)} PubMed files are partitions of raw_pubmed")
    return 0


def _distill(settings: Settings, release: bool, ablate: bool) -> int:
    from mkailin_assets.definitions import defs

    began = time.monotonic()
    with DagsterInstance.get() as instance:
        set_up(instance, settings)
        distillation = Distillation(defs, instance, settings)
        try:
            distillation.check_models()
        except ModelUnavailable as error:
            say(error, "red")
            return 2
        try:
            distillation.run(register_files(instance, settings), release, ablate)
        except NlmError as error:
            say(error, "red")
            return 1
        except Incomplete:
            pass
        distillation.report()
    say(f"{'UI':<12}{_ui_command(settings)}, then open http://127.0.0.1:3000")
    console.print(f"{time.monotonic() - began:.0f} s")
    for failure in distillation.failures:
        say(f"failed: {failure}; once its cause is mended, the same command takes it up again", "red")
    return 1 if distillation.failures else 0


def _nlm(settings: Settings) -> NlmServers:
    return NlmServers(url=settings.nlm_url, mesh_year=settings.mesh_year, pubmed_files=settings.pubmed_files)


def _ui_command(settings: Settings) -> str:
    given: dict[str, Any] = {
        name: value
        for name, value in os.environ.items()
        if name.startswith("MKAILIN_") and value and name != API_KEY
    }
    if given.get("MKAILIN_NLM_URL") == "sample" and settings.storage.endswith("data/demo"):
        return "make dev"
    quoted = (f"{name}={shlex.quote(value)}" for name, value in sorted(given.items()))
    return " ".join([*quoted, "make dev"])


if __name__ == "__main__":
    sys.exit(main())
