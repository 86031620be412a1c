"""`llmf env`: what a bug report needs to say of this machine, without secrets. Imports none of what it lists."""

import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from llmf_hydra import __version__, paths
from llmf_hydra.cli.commands import Parser
from llmf_hydra.config.schema import entries
from llmf_hydra.config.secrets import HUB_VARIABLES, MASK, masked_text
from llmf_hydra.errors import DONE
from llmf_hydra.runs import git, manifest

PACKAGES = (
    "torch", "transformers", "peft", "trl", "accelerate", "datasets", "tokenizers", "safetensors", "hydra-core",
    "omegaconf", "optuna", "numpy", "wandb", "mlflow-skinny", "tensorboard", "bitsandbytes", "hqq", "deepspeed", "ray",
    "submitit", "fastapi", "uvicorn", "gradio", "vllm", "gptqmodel", "lm-eval", "unsloth", "liger-kernel",
    "flash-attn", "torch-npu",
)  # fmt: skip
# Variables by which the libraries below are told something.
READ = re.compile(
    r"(LLMF|HF|HUGGING_FACE|HYDRA|CUDA|CUBLAS|NCCL|GLOO|TORCH|PYTORCH|OMP|MKL|WANDB|MLFLOW|TRANSFORMERS|TOKENIZERS"
    r"|ACCELERATE|DS|RAY|SLURM|MODELSCOPE|ASCEND|GRADIO|API|XDG_CACHE|PYTHON|VIRTUAL_ENV|CONDA)(_|$)"
    r"|(RANK|WORLD_SIZE|LOCAL_RANK|TMPDIR|LANG|LC_ALL|(HTTPS?|NO|ALL)_PROXY)$",
    re.IGNORECASE,
)
SECRET = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?|AUTH)(_|$)", re.IGNORECASE)
GPU_FIELDS = "name,memory.total,driver_version"


def main(argv: Sequence[str]) -> int:
    """Answer `llmf env`; returns the exit code."""
    parser = Parser("env")
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    asked = parser.parse_args(argv)
    told = {
        "llmf_hydra": _ours(),
        "machine": _machine(),
        "packages": dict(_packages()),
        "variables": dict(_variables()),
    }
    if asked.json:
        print(json.dumps(told, indent=2))
        return DONE
    for title, rows in told.items():
        width = max(map(len, rows), default=0)
        print(title)
        print("\n".join(f"  {name:<{width}}  {value}" for name, value in rows.items()) or "  none set")
    return DONE


def _ours() -> dict[str, str]:
    source = git.source()
    changed = source is not None and (source["diff"] or source["untracked"])
    return {
        "version": __version__,
        "code": str(paths.PACKAGE),
        "commit": f"{source['commit']}{', changed since' if changed else ''}"
        if source
        else "installed, no checkout",
        "working directory": str(Path.cwd()),
        "cache": str(paths.cache_dir()),
        "own conf": str(paths.user_conf_dir() or "none"),
    }


def _machine() -> dict[str, str]:
    free = shutil.disk_usage(Path.cwd()).free
    return {
        "python": f"{platform.python_version()} ({sys.executable})",
        "platform": platform.platform(),
        "cores": str(manifest.cores()),
        "memory": f"{manifest.total_memory() / 2**30:.1f} GB",
        "disk": f"{free / 2**30:.1f} GB free here",
        "gpu": "; ".join(_gpus()) or "none found",
    }


def _gpus() -> Iterator[str]:
    """A line for each GPU, as the driver's own tool knows them: asking PyTorch would take seconds."""
    tool = shutil.which("nvidia-smi")
    if tool is not None:
        command = [tool, f"--query-gpu={GPU_FIELDS}", "--format=csv,noheader"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        except (OSError, subprocess.SubprocessError) as error:
            yield f"nvidia-smi fails: {error}"
        else:
            yield from filter(None, map(str.strip, done.stdout.splitlines()))
    for kind, device in (("AMD (/dev/kfd)", "/dev/kfd"), ("Ascend NPU", "/dev/davinci_manager")):
        if Path(device).exists():
            yield kind


def _packages() -> Iterator[tuple[str, str]]:
    """The version of each package that is installed."""
    for name in PACKAGES:
        try:
            yield name, importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue


def _variables() -> Iterator[tuple[str, str]]:
    """The variables that are set and read here, secrets hidden."""
    ours = {entry.param.env: entry.param.secret for entry in entries().values() if entry.param.env}
    hubs = {name for names in HUB_VARIABLES.values() for name in names}
    for name, value in sorted(os.environ.items()):
        if name in ours or name in hubs or READ.match(name):
            hidden = ours.get(name) or name in hubs or SECRET.search(name)
            yield name, MASK if hidden else masked_text(value)
