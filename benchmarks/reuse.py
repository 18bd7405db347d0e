"""What a MeSH branch costs in calls of a model: at first, again, and after 1% of its citations were revised.

The lineage through Dagster, from current citations to generated answers, against an endpoint that counts. The
branch is one of an index of 12,000 generated citations.
"""

import tempfile
from pathlib import Path

import dagster as dg
import polars as pl

from benchmarks.model_server import MODEL, ModelServer, model_server
from benchmarks.pubmed_stage import full_citations, write_descriptors
from benchmarks.report import Goal, Report
from mkailin_assets.definitions import definitions
from mkailin_assets.partitions import pubmed_files
from mkailin_resources.profiles import Settings
from mkailin_resources.storage import Storage

CITATIONS = 12_000
SEED = 20
CHANGED = 0.01


def run() -> Report:
    """Calls of a full run, of the same partition again, and after revisions in the branch and everywhere."""
    with tempfile.TemporaryDirectory() as folder, model_server(0.0) as server:
        lineage = _Lineage(Path(folder), server)
        records = full_citations(Path(folder), CITATIONS, SEED)
        lineage.publish(records, "pubmed26n0001")
        homes = lineage.storage.read_table("current_citations")
        assert homes is not None
        branch = homes["home_branch"].drop_nulls().mode().sort()[0]
        lineage.gather(branch)
        full = lineage.distil(branch)
        second = lineage.distil(branch)
        citations = lineage.storage.read_table("branch_citations", branch)
        assert citations is not None
        revised = citations.sample(fraction=CHANGED, seed=SEED)["pmid"]
        lineage.publish(_revised(records, revised), "pubmed26n0002")
        lineage.gather(branch)
        one_percent = lineage.distil(branch)
        everywhere = records.sample(fraction=CHANGED, seed=SEED)["pmid"]
        lineage.publish(_revised(records, everywhere), "pubmed26n0003")
        lineage.gather(branch)
        of_everything = lineage.distil(branch)
    return Report(
        results={
            "citations_in_the_index": records.height,
            "branch": branch,
            "citations_of_the_branch": citations.height,
            "calls_of_a_full_run": full,
            "calls_of_a_second_run": second,
            "revised_in_the_branch": len(revised),
            "calls_after_that": one_percent,
            "revised_of_the_whole_index": len(everywhere),
            "share_of_calls_after_that": round(of_everything / full, 4),
        },
        goals=[
            Goal("second_run_calls", second, 0, at_least=False),
            Goal("one_percent_calls", round(one_percent / full, 4), 0.015, at_least=False),
        ],
    )


def _revised(records: pl.DataFrame, pmids: pl.Series) -> pl.DataFrame:
    """These citations with a sentence more in each section of the abstract."""
    section = pl.element().struct.with_fields(pl.field("text") + " This was found again by a second group.")
    return records.filter(pl.col("pmid").is_in(pmids.implode())).with_columns(
        pl.col("abstract").list.eval(section), content_hash="revised " + pl.col("content_hash")
    )


class _Lineage:
    """The code location over a storage root of its own, with the endpoint for all agents."""

    def __init__(self, root: Path, server: ModelServer) -> None:
        self.storage = Storage(root=str(root))
        self._server = server
        self._instance = dg.DagsterInstance.ephemeral()
        settings = {"PROFILE": "gpu", "ENDPOINT": server.url, "MODEL": MODEL, "STORAGE": str(root)}
        self._defs = definitions(
            Settings.from_environment({f"MKAILIN_{name}": value for name, value in settings.items()})
        )
        write_descriptors(self.storage, SEED)

    def publish(self, records: pl.DataFrame, key: str) -> None:
        """Add a parsed PubMed file and bring what reads all files up to date."""
        self._instance.add_dynamic_partitions(str(pubmed_files.name), [key])
        self.storage.write_table(records.with_columns(pubmed_file=pl.lit(key)), "pubmed_citations", key)
        assets = ["current_citations", "mesh_information_content", "context_index"]
        if self.storage.published_at("retriever_checkpoint", None) is None:
            assets.append("retriever_checkpoint")
        self._execute("resolve", None, assets)

    def gather(self, branch: str) -> None:
        """The citations of a branch, with their text."""
        self._execute("branch_text", branch, ["branch_citations"])

    def distil(self, branch: str) -> int:
        """Materialize all that asks models about a branch, and what lies between; returns the calls."""
        before = self._server.requests()
        if self.storage.published_at("question_champion", None) is None:
            self._execute("generators", None, ["question_exemplars", "domain_generator", "general_generator"])
            self._execute("evaluator", None, ["evaluator_checkpoint"])
            self._execute("champion", None, ["preferred_generator", "question_champion"])
        self._execute(
            "distill_branch",
            branch,
            [
                "candidate_questions",
                "candidate_contexts",
                "cold_start_preferences",
                "question_preferences",
                "distilled_questions",
                "distilled_contexts",
                "generated_qa",
            ],
        )
        return self._server.requests() - before

    def _execute(self, job: str, partition: str | None, assets: list[str]) -> None:
        self._defs.resolve_job_def(job).execute_in_process(
            instance=self._instance,
            partition_key=partition,
            asset_selection=[dg.AssetKey(name) for name in assets],
        )
