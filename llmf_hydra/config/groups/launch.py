"""Group `launch`: processes, devices and strictness of the start (spec table environment, General and Torchrun)."""

from dataclasses import dataclass

from llmf_hydra.config.param import param


@dataclass
class LaunchConfig:
    allow_extra_args: bool = param(
        False,
        "Warn about values that have no effect in this run, instead of refusing them.",
        env="ALLOW_EXTRA_ARGS",
    )
    verbosity: str = param(
        "INFO",
        "Log level.",
        env="LLAMAFACTORY_VERBOSITY",
        choices=("DEBUG", "INFO", "WARN"),
    )
    enable_short_console: bool = param(True, "Enable the short command `llmf`.", env="ENABLE_SHORT_CONSOLE")
    disable_version_check: bool = param(
        False, "Skip the version check of the libraries.", env="DISABLE_VERSION_CHECK"
    )
    force_check_imports: bool = param(
        False,
        "Check the optional packages of all choices, not only of those in use.",
        env="FORCE_CHECK_IMPORTS",
        planned=True,
    )
    cuda_visible_devices: str | None = param(
        None, "GPUs visible to the workers, separated by commas.", env="CUDA_VISIBLE_DEVICES"
    )
    ascend_rt_visible_devices: str | None = param(
        None,
        "NPUs visible to the workers, separated by commas.",
        env="ASCEND_RT_VISIBLE_DEVICES",
        planned=True,
    )
    npu_jit_compile: bool = param(
        False, "Enable just-in-time compilation on NPUs.", env="NPU_JIT_COMPILE", planned=True
    )
    optim_torch: bool = param(
        False, "PyTorch allocator settings for large models on CUDA.", env="OPTIM_TORCH", planned=True
    )
    omp_wait_policy: str = param(
        "PASSIVE",
        "OpenMP wait policy on the CPU: waiting threads sleep (PASSIVE) or spin (ACTIVE).",
        env="OMP_WAIT_POLICY",
        choices=("PASSIVE", "ACTIVE", "passive", "active"),
    )
    omp_num_threads: int | None = param(
        None, "CPU threads per worker; null uses all cores.", env="OMP_NUM_THREADS", ge=1
    )
    use_ray: bool = param(False, "Launch the workers with Ray.", env="USE_RAY", planned=True)
    force_torchrun: bool = param(
        False, "Launch with torchrun even for a single process.", env="FORCE_TORCHRUN", planned=True
    )
    master_addr: str = param("127.0.0.1", "Address of the first node.", env="MASTER_ADDR", planned=True)
    master_port: int | None = param(
        None,
        "Port of the first node; null picks a free one.",
        env="MASTER_PORT",
        ge=1,
        le=65535,
        planned=True,
    )
    nnodes: int = param(1, "Number of nodes.", env="NNODES", ge=1, planned=True)
    node_rank: int = param(0, "Rank of this node, from 0.", env="NODE_RANK", ge=0, planned=True)
    nproc_per_node: int = param(
        1,
        "Processes per node for data-parallel training, one per GPU, or all on the CPU.",
        env="NPROC_PER_NODE",
        ge=1,
        le=256,
    )
