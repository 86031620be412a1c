"""Workers of a run as a Ray actor. The one file that imports Ray.

The environment, which holds secrets, goes to the actor in a call, from process to process: Ray keeps the arguments
of an actor's constructor in its control store, and those of a call nowhere.
"""

import os
import signal
import socket
from pathlib import Path
from typing import Any

from llmf_hydra.config.groups.launch import LaunchConfig
from llmf_hydra.errors import LlmfError
from llmf_hydra.optional import require
from llmf_hydra.runs import signals
from llmf_hydra.runs.schedulers import host

SETTINGS = {  # of a cluster that is started here
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is reported to anybody
    "RAY_worker_niceness": "0",  # a worker is no background task
}


def submit(order: host.Order, world: int, launch: LaunchConfig, out: Path) -> "RayJob":
    """Ask for an actor with the CPUs and GPUs of all workers. Raises LlmfError where there can be none."""
    ray: Any = require("ray", extra="ray", key="launch.use_ray")
    _connect(ray, launch.ray_address)
    cpus, gpus = launch.ray_num_cpus * world, launch.ray_num_gpus * world
    _check_room(ray, cpus, gpus)
    return RayJob(ray, order, cpus, gpus)


def _connect(ray: Any, address: str | None) -> None:
    """Join the cluster, or start one that ends with this process; a sweep's trials share it."""
    if ray.is_initialized():
        return
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        ray.init(address=address, log_to_driver=False, include_dashboard=False, logging_level="ERROR")
    except ConnectionError as error:
        what = f"launch.ray_address={address}: the Ray cluster can't be joined ({error})"
        raise LlmfError(f"{what}; if it asks for a token, set RAY_AUTH_MODE=token") from error


def _check_room(ray: Any, cpus: float, gpus: float) -> None:
    """Refuse what no node can ever give, which Ray would wait for."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(node.get("CPU", 0.0) >= cpus and node.get("GPU", 0.0) >= gpus for node in nodes):
        have = "; ".join(f"{node.get('CPU', 0.0):g} CPUs, {node.get('GPU', 0.0):g} GPUs" for node in nodes)
        raise LlmfError(
            f"no node of the Ray cluster has {cpus:g} CPUs and {gpus:g} GPUs (nodes: {have}); "
            "lower launch.ray_num_cpus or launch.ray_num_gpus"
        )


class RayJob:
    """One actor, which runs the order on its node."""

    def __init__(self, ray: Any, order: host.Order, cpus: float, gpus: float):
        self._ray = ray
        ray.cloudpickle.register_pickle_by_value(host)  # a node's own Python need not have this package
        actor = ray.remote(num_cpus=cpus, num_gpus=gpus, max_restarts=0, max_concurrency=3)(host.Host)
        self._actor = actor.remote()
        self._ready = self._actor.ready.remote()
        self._end = self._actor.run.remote(order)
        self._code: int | None = None

    def code(self) -> int | None:
        """The exit code; that of SIGKILL where the actor or its node died."""
        if self._code is None and self._ray.wait([self._end], timeout=0)[0]:
            try:
                self._code = self._ray.get(self._end)
            except self._ray.exceptions.RayActorError:
                self._code = -signal.SIGKILL
        return self._code

    def send(self, number: int) -> None:
        """Pass SIGTERM on, and SIGKILL as what the node takes for it; an actor without a node is given up."""
        if not self._ray.wait([self._ready], timeout=0)[0]:
            self._ray.kill(self._actor)
            self._code = signals.EARLY
        else:
            self._actor.send.remote(host.KILL if number == signal.SIGKILL else number)

    def close(self) -> None:
        """End the actor, which gives its CPUs and GPUs back."""
        self._ray.kill(self._actor)


def answers(address: str) -> bool:
    """Whether something listens at HOST:PORT, within a second."""
    machine, _, port = address.rpartition(":")
    try:
        socket.create_connection((machine, int(port)), timeout=1.0).close()
    except OSError:
        return False
    return True
