"""The first line of a run, printed before anything heavy is imported."""

import os
from pathlib import Path

from llmf_hydra.config.schema import Config


def opening(cfg: Config, out: Path) -> str:
    """What begins where: `sft, lora of builtin:smollm2 on demo_instruct -> outputs/sft/2026-11-25_10-00-00_ab12cd`."""
    job = f"{cfg.job.name} of " if cfg.job.name != "train" else ""
    what = f"{job}{cfg.stage.name}, {cfg.method_label} of {cfg.model.model_name_or_path}"
    read = cfg.evaluation.task if cfg.job.name == "evaluate" else cfg.data.dataset or cfg.data.tokenized_path
    return f"{what}{f' on {read}' if read else ''} -> {os.path.relpath(out)}"


def opened(line: str, cwd: Path) -> Path | None:
    """The folder of the run that such a line, printed in `cwd`, opens; None for another line."""
    _, arrow, folder = line.rstrip("\n").rpartition(" -> ")
    return Path(os.path.normpath(cwd / folder)) if arrow and " on " in line else None
