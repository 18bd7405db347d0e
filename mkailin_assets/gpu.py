"""What assets need that ask language models or train them: a place in the pool `gpu`, and a GPU."""

from typing import Any

from dagster import DagsterInstance

POOL = "gpu"
# Arguments of `dg.asset`. On Kubernetes an executor that starts a pod for each step gives the pod a GPU.
ON_GPU: dict[str, Any] = {
    "pool": POOL,
    "op_tags": {
        "dagster-k8s/config": {"container_config": {"resources": {"limits": {"nvidia.com/gpu": "1"}}}}
    },
}


def set_pool_limit(instance: DagsterInstance, runs: int) -> None:
    """So many runs may be in the pool at once; a limit in `dagster.yaml` would be read only once."""
    instance.event_log_storage.set_concurrency_slots(POOL, runs)
