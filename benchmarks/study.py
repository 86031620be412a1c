"""A sweep beside single commands of the same configs: what trials of a study save by sharing their work.

python -m benchmarks.study [--trials 8] [--singles 2] [words of the command]

Single commands are measured in three states of the cache, and the sweep's share of them is told for each:

    empty       nothing is there: the embedded model is converted first, by each command and by the sweep once
    converted   the model is there; rows are tokenized and put before the reference by each command
    filled      an earlier run of the same rows has left everything

Of `trials` commands `singles` are measured in each state (of the empty one: one), and their mean stands for all.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean
from typing import Any

from llmf_hydra.models.builtin import smollm2
from llmf_hydra.paths import cache_dir

WORDS = ["stage=dpo", "method=lora", "training.max_steps=20"]
SWEPT = "rlhf.pref_beta"
BETAS = [0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5]
Taken = dict[str, float]  # seconds by the clock, and of the processors by all processes of a command


def measure(trials: int = 8, singles: int = 2, words: list[str] | None = None) -> dict[str, Any]:
    """Seconds of one sweep and of a single command, the sweep's share of `trials` of them, and what was shared."""
    smollm2.ready()
    words, betas = [*WORDS, *(words or [])], BETAS[:trials]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def single(state: str, beta: float, cache: Path) -> Taken:
            return _taken([*words, f"{SWEPT}={beta}", f"hydra.run.dir={state}/{beta}"], folder, cache)

        empty = single("empty", betas[0], Path(tempfile.mkdtemp(dir=folder)))
        caches = [_cache(folder) for _ in betas[:singles]]
        own = [single("converted", beta, cache) for beta, cache in zip(betas, caches, strict=False)]
        filled = [single("filled", beta, caches[0]) for beta in betas[:singles]]
        values = ",".join(map(str, betas))
        sweep = _taken(["-m", *words, f"{SWEPT}={values}", "hydra.sweep.dir=sweep"], folder, _cache(folder))
        converting = {key: empty[key] - own[0][key] for key in sweep}
        alike = all(_weights(folder / "converted" / str(betas[n])) == _weights(folder / "sweep" / str(n))
                    for n in range(singles))  # fmt: skip
        return {
            "words": words,
            "trials": trials,
            "sweep": _rounded(sweep),
            "one_command": {"empty": _rounded(empty), "converted": _mean(own), "filled": _mean(filled)},
            "sweep_of_singles": {
                "empty": {
                    key: round((sweep[key] + converting[key]) / (trials * empty[key]), 3) for key in sweep
                },
                "converted": {
                    key: round(sweep[key] / (trials * value), 3) for key, value in _mean(own).items()
                },
                "filled": {
                    key: round(sweep[key] / (trials * value), 3) for key, value in _mean(filled).items()
                },
            },
            **_shared(folder / "sweep"),
            "same_weights": alike,
        }


def _mean(several: list[Taken]) -> Taken:
    return _rounded({key: mean(taken[key] for taken in several) for key in several[0]})


def _cache(folder: Path) -> Path:
    """A cache that holds the converted model alone."""
    cache = Path(tempfile.mkdtemp(dir=folder, prefix="cache-"))
    (cache / "models").symlink_to(cache_dir() / "models")
    return cache


def _taken(words: list[str], folder: Path, cache: Path) -> Taken:
    """What a command takes with all processes that it starts."""
    begun = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "llmf_hydra", *words],
        cwd=folder, env={**os.environ, "LLMF_CACHE": str(cache)}, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"exit code {process.returncode} of {' '.join(words)}")
    return {"wall_s": time.perf_counter() - begun, "cpu_s": used.ru_utime + used.ru_stime}


def _shared(sweep: Path) -> dict[str, Any]:
    """How often a row was put before the reference, and a dataset tokenized, in all trials together."""
    manifests = [
        json.loads(file.read_text(encoding="utf8")) for file in sorted(sweep.glob("*/manifest.json"))
    ]
    return {
        "reference_rows": max(
            told["reference"]["computed"] + told["reference"]["kept"] for told in manifests
        ),
        "reference_rows_computed": sum(told["reference"]["computed"] for told in manifests),
        "datasets_tokenized": sum(
            list(told["tokenized"].values()).count("by this run") for told in manifests
        ),
        "forked": sum(told["warm"] for told in manifests),
    }


def _weights(run: Path) -> bytes:
    return (run / "final" / "adapter_model.safetensors").read_bytes()


def _rounded(taken: Taken) -> Taken:
    return {key: round(value, 1) for key, value in taken.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=len(BETAS))
    parser.add_argument("--singles", type=int, default=2)
    parser.add_argument("words", nargs="*")
    asked = parser.parse_args()
    print(json.dumps(measure(asked.trials, asked.singles, asked.words), indent=2))
