"""Group `launch`: processes, devices, and how strict the start is (spec table environment, General and Torchrun)."""

from dataclasses import dataclass

from llmf_hydra.config.param import param


@dataclass
class LaunchConfig:
    allow_extra_args: bool = param(
        False,
        "Only warn of values that have no effect in this run, instead of refusing them.",
        env="ALLOW_EXTRA_ARGS",
    )
    verbosity: str = param(
        "INFO",
        "Least level of the log: DEBUG, INFO or WARN.",
        env="LLAMAFACTORY_VERBOSITY",
        choices=("DEBUG", "INFO", "WARN"),
    )
    enable_short_console: bool = param(
        True, "Whether the short command `llmf` may be used.", env="ENABLE_SHORT_CONSOLE"
    )
    disable_version_check: bool = param(
        False, "Skip the check of the libraries' versions.", env="DISABLE_VERSION_CHECK"
    )
    force_check_imports: bool = param(
        False,
        "Check the optional packages of every choice, used or not.",
        env="FORCE_CHECK_IMPORTS",
        planned=True,
    )
    cuda_visible_devices: str | None = param(
        None, "GPUs the worker sees, separated by commas.", env="CUDA_VISIBLE_DEVICES"
    )
    ascend_rt_visible_devices: str | None = param(
        None, "NPUs the worker sees, separated by commas.", env="ASCEND_RT_VISIBLE_DEVICES", planned=True
    )
    npu_jit_compile: bool = param(
        False, "Let an NPU compile just in time.", env="NPU_JIT_COMPILE", planned=True
    )
    optim_torch: bool = param(
        False, "Memory settings of torch that suit large models on CUDA.", env="OPTIM_TORCH", planned=True
    )
    omp_wait_policy: str = param(
        "PASSIVE",
        "Whether OpenMP's threads sleep (PASSIVE) or spin (ACTIVE) while they wait, on the CPU.",
        env="OMP_WAIT_POLICY",
        choices=("PASSIVE", "ACTIVE", "passive", "active"),
    )
    omp_num_threads: int | None = param(
        None, "Threads of a worker on the CPU; null takes the number of cores.", env="OMP_NUM_THREADS", ge=1
    )
    use_ray: bool = param(False, "Start the workers with Ray.", env="USE_RAY", planned=True)
    force_torchrun: bool = param(
        False, "Start with torchrun even for one process.", env="FORCE_TORCHRUN", planned=True
    )
    master_addr: str = param("127.0.0.1", "Address of the first node.", env="MASTER_ADDR", planned=True)
    master_port: int | None = param(
        None,
        "Port of the first node; null takes a free one.",
        env="MASTER_PORT",
        ge=1,
        le=65535,
        planned=True,
    )
    nnodes: int = param(1, "Number of nodes.", env="NNODES", ge=1, planned=True)
    node_rank: int = param(0, "Number of this node, from 0.", env="NODE_RANK", ge=0, planned=True)
    nproc_per_node: int = param(
        1,
        "Processes that train together on each node (DDP), each on a GPU of its own or all on the CPU.",
        env="NPROC_PER_NODE",
        ge=1,
    )
