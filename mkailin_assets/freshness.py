"""Whether a partition is up to date, decided as `make` decides: from when its inputs last changed."""

from collections.abc import Sequence

import dagster as dg
from dagster import AssetRecordsFilter, DagsterInstance
from dagster._core.definitions.assets.graph.base_asset_graph import BaseAssetGraph, BaseAssetNode

from mkailin_resources.storage import Storage

CODE_VERSION_TAG = "dagster/code_version"
# An asset with this tag is a checkpoint: new input does not make it stale, a person renews it.
FIXED_TAG = "mkailin/fixed"


class Freshness:
    """Compares each materialization that the Dagster instance knows with the tables it was made from.

    Dagster's own staleness does not look at the partitions of an upstream asset with 100 or more of them,
    and there are 115 MeSH branches.
    """

    def __init__(self, graph: BaseAssetGraph, instance: DagsterInstance, storage: Storage) -> None:
        self._graph = graph
        self._instance = instance
        self._storage = storage

    def out_of_date(self, names: Sequence[str], partition: str | None) -> list[str]:
        """Of these assets, those to materialize, in the order data flows: stale ones and all below them."""
        order = [key for key in self._graph.toposorted_asset_keys if key.to_user_string() in names]
        stale: set[dg.AssetKey] = set()
        for key in order:
            node = self._graph.get(key)
            below_stale = node.parent_keys & stale and FIXED_TAG not in node.tags
            if below_stale or self.reason(key.to_user_string(), partition):
                stale |= set(node.execution_set_asset_keys)
        return [key.to_user_string() for key in order if key in stale]

    def reason(self, name: str, partition: str | None) -> str | None:
        """Why this asset, or this partition of it, has to be materialized; None when it has not."""
        made = self._last_materialization(name, partition)
        if made is None or self._storage.published_at(name, partition) is None:
            return "missing"
        node = self._graph.get(dg.AssetKey(name))
        if _code_version(made) != node.code_version:
            return "made by other code or settings"
        if FIXED_TAG in node.tags:
            return None
        began = self._began(made)
        for parent in sorted(node.parent_keys):
            upstream_name = parent.to_user_string()
            for upstream, changed in self._read(node, parent, partition).items():
                if changed is not None and changed > began:
                    return f"{upstream_name} {upstream or ''} has changed".replace("  ", " ")
        return None

    def _last_materialization(self, name: str, partition: str | None) -> dg.EventLogEntry | None:
        wanted = AssetRecordsFilter(dg.AssetKey(name), asset_partitions=[partition] if partition else None)
        records = self._instance.fetch_materializations(wanted, limit=1).records
        return records[0].event_log_entry if records else None

    def _began(self, made: dg.EventLogEntry) -> float:
        # What changed while the step ran was not read by it, so its start counts, not its end.
        step = self._instance.get_run_step_stats(made.run_id, [made.step_key] if made.step_key else None)
        return step[0].start_time if step and step[0].start_time else made.timestamp

    def _read(
        self, node: BaseAssetNode, parent: dg.AssetKey, partition: str | None
    ) -> dict[str | None, float | None]:
        """When what it reads of an upstream asset was published last, by partition."""
        name, partitions = parent.to_user_string(), self._graph.get(parent).partitions_def
        if partitions is None:
            return {None: self._storage.published_at(name, None)}
        if partition is not None and partitions == node.partitions_def:
            return {partition: self._storage.published_at(name, partition)}
        keys = partitions.get_partition_keys(dynamic_partitions_store=self._instance)
        times = self._storage.partitions_published_at(name)
        return {key: times.get(key) for key in keys}


def _code_version(made: dg.EventLogEntry) -> str | None:
    materialization = made.asset_materialization
    return (materialization.tags or {}).get(CODE_VERSION_TAG) if materialization else None
