"""From the launch to the first optimizer step, beside a bare import of the libraries in the same minute."""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

IMPORTS = "import torch, transformers, peft, trl"
WORDS = ["stage=sft", "model=tiny", "training.max_steps=1", "training.eval_strategy=no", "data.val_size=0",
         "training.save_strategy=no", "training.plot_loss=false"]  # fmt: skip


def measure(repeats: int = 3) -> dict[str, float]:
    """Seconds: the median bare import, the median way to the first step, and what the latter takes more."""
    with tempfile.TemporaryDirectory() as folder:
        _first_step(Path(folder))  # builds the tiny model and the cache of the data
        bare = [_bare() for _ in range(repeats)]
        first = [_first_step(Path(folder)) for _ in range(repeats)]
    return {
        "bare_import_s": round(statistics.median(bare), 2),
        "first_step_s": round(statistics.median(first), 2),
        "above_bare_import_s": round(statistics.median(first) - statistics.median(bare), 2),
    }


def _bare() -> float:
    before = time.perf_counter()
    subprocess.run([sys.executable, "-c", IMPORTS], check=True, capture_output=True)
    return time.perf_counter() - before


def _first_step(folder: Path) -> float:
    out = folder / str(time.time_ns())
    before = time.time()
    subprocess.run([sys.executable, "-m", "llmf_hydra", *WORDS, f"hydra.run.dir={out}"], check=True,
                   capture_output=True, cwd=folder)  # fmt: skip
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf8"))
    return datetime.fromisoformat(manifest["first_step"]).timestamp() - before
