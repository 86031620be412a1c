"""A scheduler that can't run the workers is refused before anything is started."""

import socket

import pytest
from support.command_line import Cli

BEGIN = ["stage=sft", "model=tiny"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["launch=slurm"], "launch.slurm_cluster=slurm: sbatch and srun are not on the PATH; start it on a login node"),
        (["launch=slurm", "launch.use_ray=true"], "launch.use_slurm=true: contradicts launch.use_ray=true"),
        (["launch=ray", "launch.ray_address=head"], "launch.ray_address=head: is not null, auto, local or HOST:PORT"),
        (["launch=ray", "launch.ray_address=ray://a:1"], "is not null, auto, local or HOST:PORT"),
        (["launch=ray", "launch.ray_num_gpus=1", "launch.cuda_visible_devices='0'"], "ray_num_gpus=1 has"),
        (["launch.ray_num_gpus=1"], "launch.ray_num_gpus=1: has no effect"),
        (["launch.slurm_time=5"], "launch.slurm_time=5: has no effect"),
    ],
)  # fmt: skip
def test_a_scheduler_that_cannot_run_the_workers(words: list[str], said: str, cli: Cli) -> None:
    done = cli(*BEGIN, *words)
    assert done.returncode == 2 and said in done.stderr, done.stderr


def test_a_ray_cluster_that_does_not_answer_and_the_variable_that_asks_for_one(cli: Cli) -> None:
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))  # bound, and nobody listens
        address = f"127.0.0.1:{door.getsockname()[1]}"
        done = cli(*BEGIN, f"launch.ray_address={address}", env={"USE_RAY": "1"})
    assert done.returncode == 2
    assert f"launch.ray_address={address}: nothing answers there; start its head" in done.stderr
