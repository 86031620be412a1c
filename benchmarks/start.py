"""From the launch to the first optimizer step, beside a bare import of the libraries in the same minute, and the
processor time of answers that start nothing."""

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

IMPORTS = "import torch, transformers, peft, trl"
WORDS = ["stage=sft", "model=tiny", "training.max_steps=1", "training.eval_strategy=no", "data.val_size=0",
         "training.save_strategy=no", "training.plot_loss=false"]  # fmt: skip

BARE = "import hydra.main, hydra._internal.hydra, omegaconf"
# What that takes where `--cfg job` takes 0.73 s: of fifteen pairs in one minute the median ratio was 2.55.
BARE_SECONDS = 0.29
ANSWERS = [  # words, exit code, processor seconds allowed
    (["--help"], 0, 0.3),
    (["--help", "rlhf"], 0, 0.3),
    (["explain", "pref_beta"], 0, 0.8),
    (["status"], 0, 0.5),
    (["--cfg", "job"], 0, 0.8),
    (["method.lora_rnk=8"], 2, 1.0),
    (["stage=dpo", "rlhf.pref_beta=-1"], 2, 1.0),
    (["stage=sft", "data.dataset=missing"], 2, 1.0),
]


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


def answers(repeats: int = 5) -> dict[str, dict[str, float | bool]]:
    """Processor seconds of each answer at its best, those allowed here, and whether it is slower than that.

    The clock of a shared machine tells of its neighbours; the processor's time, at its best, of the code.
    """
    bare = min(taken_by([sys.executable, "-c", BARE])[0] for _ in range(repeats))
    # Neighbours take a third of a shared machine; what is slower still is not excused.
    slowness = min(max(1.0, bare / BARE_SECONDS), 1.5)
    found: dict[str, dict[str, float | bool]] = {}
    for words, _, allowed in ANSWERS:
        best = min(taken_by([sys.executable, "-m", "llmf_hydra", *words])[0] for _ in range(repeats))
        limit = allowed * slowness
        found[" ".join(words)] = {"s": round(best, 2), "allowed_s": round(limit, 2), "too_slow": best > limit}
    return found


def taken_by(words: list[str], **options: Any) -> "tuple[float, subprocess.CompletedProcess[str]]":
    """Processor seconds of a command, and what it gave."""
    before = _processor_seconds()
    done = subprocess.run(words, capture_output=True, text=True, check=False, **options)
    return _processor_seconds() - before, done


def _processor_seconds() -> float:
    """Processor time of all child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


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
