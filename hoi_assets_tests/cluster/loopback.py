"""A Ray cluster of several nodes on loopback, whose head can be killed."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hoi_assets_tests.processes import free_port

NODES = 3
TRIES = 4
# A worker has one CPU, as the profile's models have one thread.
NODE = {"num_cpus": 1, "object_store_memory": 100 << 20}
# Other programs of this machine may fill its memory, and keep nodes from answering for a while: Ray
# would kill workers then, or take a node for dead.
ENVIRONMENT = {
    "RAY_memory_monitor_refresh_ms": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_health_check_timeout_ms": "60000",
    "RAY_health_check_failure_threshold": "10",
}


class LoopbackCluster:
    """Started when made; needs `ray_variables` around it."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        # Ports of their own: nodes and clusters of one machine have the same defaults.
        ports = [{"dashboard_agent_listen_port": free_port()} for _ in range(NODES)]
        head = {**NODE, **ports[0], "include_dashboard": True, "dashboard_port": free_port()}
        self._cluster = Cluster()
        for own in (head, *({**NODE, **own} for own in ports[1:])):
            _patiently(lambda own=own: self._cluster.add_node(wait=False, **own))
        self._cluster.wait_for_nodes(timeout=120)
        self.address: str = self._cluster.address

    @contextmanager
    def another_node(self, resource: str, variables: dict[str, str]) -> Iterator[None]:
        """Inside, one more node is there, which has a resource of that name and variables of its
        own."""
        node = self._cluster.add_node(
            **NODE,
            resources={resource: 1},
            env_vars=variables,
            dashboard_agent_listen_port=free_port(),
        )
        try:
            yield
        finally:
            self._cluster.remove_node(node)

    def kill_head(self) -> None:
        """SIGKILL to every process of the head's node that Ray started there."""
        self._cluster.remove_node(self._cluster.head_node, allow_graceful=False)

    def close(self) -> None:
        """End all nodes."""
        self._cluster.shutdown()


def _patiently(start: Callable[[], object]) -> None:
    """Start a node; Ray gives it 30 s, which a busy machine may not keep. What was left of one that
    came too late ends with this process."""
    for left in reversed(range(TRIES)):
        try:
            start()
            return
        except Exception as error:
            if "timed out during startup" not in str(error) or not left:
                raise


@contextmanager
def ray_variables(**more: str) -> Iterator[None]:
    """The environment of a cluster's processes."""
    before = dict(os.environ)
    os.environ.update(ENVIRONMENT | more)
    # As in an activated environment: jobs call `dagster`.
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
