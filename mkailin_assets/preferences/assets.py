"""The preferences stage: from candidate questions with contexts to the question MeSH prefers."""

from typing import Any

import dagster as dg
import polars as pl

from mkailin_assets.mesh.hierarchy import MeshHierarchy
from mkailin_assets.mesh.similarity import HeadingSimilarity
from mkailin_assets.metadata import bars, counts, histogram, preview
from mkailin_assets.partitions import mesh_branches
from mkailin_assets.preferences.cold_start import ColdStartRules, describe_snapshot, prefer_by_mesh
from mkailin_assets.preferences.tables import ColdStartPreference
from mkailin_assets.tables import table


class ColdStartConfig(dg.Config, ColdStartRules):
    """How questions are scored, and which pairs are preferences to learn from."""


@dg.asset(
    **table(ColdStartPreference),
    partitions_def=mesh_branches,
    group_name="preferences",
    kinds={"polars", "numba"},
    code_version="1",
)
def cold_start_preferences(
    candidate_contexts: pl.DataFrame,
    mesh_descriptors: pl.DataFrame,
    mesh_information_content: pl.DataFrame,
    config: ColdStartConfig,
) -> dg.Output[pl.DataFrame]:
    """Of each citation's two questions, the one whose contexts fit the citation best in MeSH."""
    hierarchy = MeshHierarchy.from_descriptors(mesh_descriptors)
    similarity = HeadingSimilarity.from_table(
        hierarchy, mesh_information_content, config.ic_source, config.measure
    )
    snapshot = describe_snapshot(mesh_descriptors, mesh_information_content)
    preferences = prefer_by_mesh(candidate_contexts, similarity, config, snapshot)
    return dg.Output(preferences, metadata=_preference_metadata(preferences))


def _preference_metadata(preferences: pl.DataFrame) -> dict[str, Any]:
    kept = preferences.filter("kept")
    margins = preferences["margin"].drop_nulls().to_list()
    return {
        "citations": preferences.height,
        "kept": kept.height,
        "dropped": counts(preferences.filter(~pl.col("kept")), "reason"),
        "wins": bars("Kept preferences won by each generator", counts(kept, "chosen_role")),
        "mean_chosen_score": preferences["chosen_score"].mean(),
        "mean_rejected_score": preferences["rejected_score"].mean(),
        "margins": histogram("Lead of the chosen question", margins, "difference of MeSH scores"),
        "preview": preview(preferences.select("pmid", "chosen_question", "rejected_question", "margin")),
    }
