"""Training speed and peak memory of short runs from the real command line."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

COMMON = ["training.eval_strategy=no", "data.val_size=0", "training.save_strategy=no", "training.plot_loss=false",
          "training.logging_steps=1", "training.include_effective_tokens_per_second=true"]  # fmt: skip


def measure(stage: str, model: str, steps: int) -> dict[str, Any]:
    """Tokens a second without padding, seconds a step (the first left out: it warms up), peak memory in MB."""
    with tempfile.TemporaryDirectory() as folder:
        words = [
            f"stage={stage}",
            f"model={model}",
            f"training.max_steps={steps}",
            "hydra.run.dir=run",
            *COMMON,
        ]
        subprocess.run(
            [sys.executable, "-m", "llmf_hydra", *words], check=True, capture_output=True, cwd=folder
        )
        out = Path(folder) / "run"
        lines = [json.loads(line) for line in (out / "log.jsonl").read_text(encoding="utf8").splitlines()]
        speeds = [
            line["effective_tokens_per_second"] for line in lines if "effective_tokens_per_second" in line
        ][1:]
        times = [line["time"] for line in lines if "loss" in line]
        manifest = json.loads((out / "manifest.json").read_text(encoding="utf8"))
    return {
        "tokens_per_s": round(sum(speeds) / len(speeds), 1),
        "step_s": round((times[-1] - times[0]) / (len(times) - 1), 3),
        "peak_memory_mb": manifest["peak_memory_mb"],
    }
