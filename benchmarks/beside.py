"""Our steps beside those of TRL and, where LLAMAFACTORY_PYTHON names a Python that has it, of LLaMA-Factory.

python -m benchmarks.beside sft|dpo|kto|rm|grpo MODEL [--steps 6] [--epochs 1] [--only trl_as_shipped] [words]

Each is a process with one thread. They load, then step by turns on the same rows in the same order: a ratio is of two
steps that follow each other, and what is told is the median of the ratios, with the lowest and the highest. The first
step warms up and isn't counted. `whole` is all of a training without the loading: what comes before the first step,
such as our reference pass, the steps, and what comes after.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from statistics import median
from typing import Any

from benchmarks.turns import Runner

STEPS = 6  # that are counted, after one that warms up
BATCH = 4
COMMON = ["data.val_size=0", "training.eval_strategy=no", "training.save_strategy=no", "training.plot_loss=false",
          "training.disable_shuffling=true", "training.logging_steps=1000", "model.compute_dtype=float32"]  # fmt: skip
# Two prompts per step, eight answers each.
GROUPS = ["data.dataset=demo_grpo", "rlhf.rewards=[exact_match]", "rlhf.num_generations=8",
          "generation.max_new_tokens=16"]  # fmt: skip
STAGES = ("sft", "dpo", "kto", "rm")
# The first has our setting of gradient checkpointing (off for SmolLM2), the second the peer's own default, which is on.
PEERS = {"trl": ("trl", False), "trl_as_shipped": ("trl", True), "llama_factory": ("llama_factory", False),
         "llama_factory_as_shipped": ("llama_factory", True)}  # fmt: skip
PYTHON = "LLAMAFACTORY_PYTHON"


def measure(model: str, stages: Sequence[str] = STAGES) -> dict[str, Any]:
    """Each stage beside its peers; dpo also over two epochs, since ours asks the reference once for both."""
    found = {stage: beside(stage, model) for stage in stages}
    return {**found, "dpo_two_epochs": beside("dpo", model, steps=3, epochs=2, only=["trl"])}


def beside(
    stage: str,
    model: str,
    steps: int = STEPS,
    epochs: int = 1,
    only: Sequence[str] = (),
    more: Sequence[str] = (),
) -> dict[str, Any]:
    """Seconds per step and of the whole training of each, and how many times as fast ours is as each peer."""
    turns = (steps + 1) * epochs
    batch = BATCH if stage != "grpo" else 16
    words = [f"stage={stage}", f"model={model}", *COMMON, *(GROUPS if stage == "grpo" else []),
             f"data.max_samples={(steps + 1) * BATCH}", f"training.max_steps={turns}",
             f"training.per_device_train_batch_size={batch}", *more]  # fmt: skip
    names = only or (["trl"] if stage == "grpo" else list(PEERS))
    runners = {"ours": Runner([sys.executable, "-m", "benchmarks.peers.ours", json.dumps({"words": words})])}
    try:
        for name in names:
            runner = _peer(name, stage, words)
            if runner is not None:
                runners[name] = runner
        return {"words": " ".join(words), **_by_turns(runners, turns)}
    finally:
        for runner in runners.values():
            runner.end()


def _peer(name: str, stage: str, words: list[str]) -> Runner | None:
    """The process of a peer; None where it isn't to be had here."""
    module, shipped = PEERS[name]
    if module == "trl":
        asked: dict[str, Any] = {"words": words, "shipped": shipped}
        return Runner([sys.executable, "-m", "benchmarks.peers.trl", json.dumps(asked)])
    python = os.environ.get(PYTHON)
    if not python:
        return None
    from llmf_hydra.config import compose
    from llmf_hydra.models.sources import hubs

    cfg = compose.typed(compose.composed(words))
    asked = {
        "stage": stage,
        "shipped": shipped,
        "recomputes": not cfg.model.disable_gradient_checkpointing,
        "model": hubs.folder_of(cfg.model, weights=True),
        "method": cfg.method.name,
        "dataset": str(cfg.data.dataset),
        "rows": cfg.data.max_samples,
        "cutoff_len": cfg.data.cutoff_len,
        "steps": cfg.training.max_steps,
        "batch": cfg.training.per_device_train_batch_size,
        "accumulation": cfg.training.gradient_accumulation_steps,
        "learning_rate": cfg.training.learning_rate,
        "lora_rank": cfg.method.lora_rank,
        "lora_alpha": cfg.method.alpha,
    }
    return Runner([python, "-m", "benchmarks.peers.llama_factory", json.dumps(asked)])


def _by_turns(runners: dict[str, Runner], steps: int) -> dict[str, Any]:
    told = {name: runner.hear() for name, runner in runners.items()}
    on_gpu = any(one.get("device") == "cuda" for one in told.values())
    clock = "s" if on_gpu else "cpu_s"
    taken: dict[str, list[dict[str, Any]]] = {name: [] for name in runners}
    for _ in range(steps + 2):  # before, the steps, after
        for name, runner in runners.items():
            taken[name].append(runner.turn())
    found: dict[str, Any] = {"clock": "wall" if on_gpu else "processor, one thread"}
    for name, parts in taken.items():
        order = [part["part"] for part in parts]
        if order != ["before", *["step"] * steps, "after"]:
            raise RuntimeError(f"{name} took other turns than the rest: {order}")
        found[name] = {
            "step_s": round(median(part[clock] for part in parts[2:-1]), 3),
            "before_s": round(parts[0][clock], 3),
            "whole_s": round(sum(part[clock] for part in parts), 3),
            **{key: told[name][key] for key in ("tokens", "recomputes") if key in told[name]},
        }
    for name in taken:
        if name != "ours":
            pairs = zip(taken["ours"][2:-1], taken[name][2:-1], strict=True)
            ratios = [theirs[clock] / mine[clock] for mine, theirs in pairs]
            found[name]["times"] = spread(ratios)
            found[name]["times_whole"] = round(found[name]["whole_s"] / found["ours"]["whole_s"], 3)
    return found


def spread(ratios: Sequence[float]) -> dict[str, float]:
    """Median, lowest and highest of ratios, and how many they are."""
    low, high = min(ratios), max(ratios)
    return {
        "median": round(median(ratios), 3),
        "low": round(low, 3),
        "high": round(high, 3),
        "pairs": len(ratios),
    }


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stage", choices=[*STAGES, "grpo"])
    parser.add_argument("model", help="the choice model=MODEL")
    parser.add_argument("--steps", type=int, default=STEPS, help="steps that are counted")
    parser.add_argument("--epochs", type=int, default=1, help="how often the rows are seen")
    parser.add_argument("--only", nargs="*", choices=PEERS, default=(), help="these peers alone")
    parser.add_argument("words", nargs="*", help="settings of ours, which the peers get too")
    asked = parser.parse_args()
    found = beside(asked.stage, asked.model, asked.steps, asked.epochs, asked.only, asked.words)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
