"""The files that rewards are read from, with their digests. Without torch."""

from pathlib import Path

from llmf_hydra.config.rewards.items import RewardSpec
from llmf_hydra.config.schema import Config
from llmf_hydra.runs.file_digests import Files, remembered
from llmf_hydra.training.rewards import function


def reward_files(cfg: Config) -> dict[str, Files]:
    """The file of each function and each schema of `rlhf.rewards`, by the reward's label; models are told as models."""
    if not cfg.stage.info.rollouts:
        return {}
    found = {spec.label: _file(spec) for spec in cfg.rlhf.listed}
    return {
        label: {"path": str(file.parent), "files": {file.name: remembered(file)}}
        for label, file in found.items()
        if file is not None and file.is_file()
    }


def _file(spec: RewardSpec) -> Path | None:
    if spec.kind == "python":
        return function.file_of(spec.argument)
    return Path(spec.argument).expanduser() if spec.kind == "json_schema" else None
