"""Group `launch`: processes, devices and strictness of the start (spec table environment, General and Torchrun)."""

from dataclasses import dataclass

from llmf_hydra.config.param import param

RAY = {"launch.use_ray": (True,)}
SLURM = {"launch.use_slurm": (True,)}


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
        "Refuse a model whose own code imports a package that is missing, even where it would not be used.",
        env="FORCE_CHECK_IMPORTS",
        only={"model.trust_remote_code": (True,)},
    )
    cuda_visible_devices: str | None = param(
        None, "GPUs visible to the workers, separated by commas.", env="CUDA_VISIBLE_DEVICES"
    )
    ascend_rt_visible_devices: str | None = param(
        None,
        "NPUs visible to the workers, separated by commas.",
        env="ASCEND_RT_VISIBLE_DEVICES",
    )
    npu_jit_compile: bool = param(
        False, "Enable just-in-time compilation on Ascend NPUs.", env="NPU_JIT_COMPILE"
    )
    optim_torch: bool = param(
        False,
        "CUDA settings of PyTorch that save memory: expandable segments, and no recorded streams in NCCL.",
        env="OPTIM_TORCH",
    )
    omp_wait_policy: str = param(
        "PASSIVE",
        "OpenMP wait policy: waiting threads spin briefly and then sleep (PASSIVE), or go on spinning (ACTIVE).",
        env="OMP_WAIT_POLICY",
        choices=("PASSIVE", "ACTIVE", "passive", "active"),
    )
    omp_num_threads: int | None = param(
        None, "CPU threads per worker; null uses all cores.", env="OMP_NUM_THREADS", ge=1
    )
    use_ray: bool = param(False, "Launch the workers of a run as a Ray actor.", env="USE_RAY")
    ray_address: str | None = param(
        None,
        "Ray cluster: HOST:PORT of its head node, `auto` for one that must run already, `local` to start one on this "
        "machine for this command; null takes a running one and else starts one.",
        only=RAY,
    )
    ray_num_cpus: float = param(1.0, "CPUs reserved per worker.", ge=0, only=RAY)
    ray_num_gpus: float = param(0.0, "GPUs reserved per worker; a fraction shares one.", ge=0, only=RAY)
    use_slurm: bool = param(False, "Launch the workers of a run as a Slurm job, through submitit.")
    slurm_cluster: str = param(
        "slurm",
        "Where submitit runs the job: sbatch (slurm), or a process of this machine (local).",
        choices=("slurm", "local"),
        only=SLURM,
    )
    slurm_partition: str | None = param(
        None, "Partition of the job; null leaves it to the cluster.", only=SLURM
    )
    slurm_time: int = param(
        1440,
        "Time limit of the job in minutes. The run is asked to save and stop shortly before it.",
        ge=1,
        only=SLURM,
    )
    slurm_gpus: int = param(0, "GPUs of the job.", ge=0, only=SLURM)
    slurm_cpus: int = param(1, "CPUs of the job.", ge=1, only=SLURM)
    slurm_mem_gb: float | None = param(
        None, "Memory of the job in GB; null leaves it to the cluster.", gt=0, only=SLURM
    )
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
