"""Memory, speed and loss of the optimizers and methods, from the real command line.

python -m benchmarks.optimizers smollm2 [--steps 50] [--plot FILE.png] [--table FILE.md]
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

COMMON = ["stage=sft", "data.val_size=24", "training.eval_strategy=steps", "training.save_strategy=steps",
          "training.plot_loss=false", "training.logging_steps=1", "training.lr_scheduler_type=constant",
          "training.warmup_ratio=0", "training.include_effective_tokens_per_second=true"]  # fmt: skip
FULL = "method=full"
# Each with a learning rate of the size that its paper uses, for its steps aren't of one size.
ROWS = {
    "adamw": [FULL, "optimizer=adamw", "training.learning_rate=5e-5"],
    "adam_mini": [FULL, "optimizer=adam_mini", "training.learning_rate=5e-5"],
    "galore": [FULL, "optimizer=galore", "training.learning_rate=2e-4"],
    "galore, layerwise": [FULL, "optimizer=galore", "optimizer.galore_layerwise=true", "training.max_grad_norm=0",
                          "training.learning_rate=2e-4"],
    "apollo": [FULL, "optimizer=apollo", "training.learning_rate=5e-5"],
    "badam": [FULL, "optimizer=badam", "optimizer.badam_switch_interval=10", "training.learning_rate=5e-5"],
    "muon": [FULL, "optimizer=muon", "training.learning_rate=5e-5"],
    "freeze": ["method=freeze", "training.learning_rate=5e-5"],
    "lora": ["method=lora", "training.learning_rate=2e-4"],
    "qlora": ["method=qlora", "training.learning_rate=2e-4"],
}  # fmt: skip
COLUMNS = {
    "state_mb": "optimizer state, MB",
    "gradients_mb": "gradients, MB",
    "peak_memory_mb": "peak memory, MB",
    "tokens_per_s": "tokens/s",
    "loss": "loss",
}


def measure(model: str, steps: int) -> dict[str, dict[str, float]]:
    """Of each row the figures of COLUMNS; the loss is that of held-out rows after the last step."""
    found: dict[str, dict[str, float]] = {}
    for name, words in ROWS.items():
        with tempfile.TemporaryDirectory() as folder:
            found[name] = _run(Path(folder), model, steps, words)
        print(f"{name}: {found[name]}", file=sys.stderr, flush=True)
    return found


def _run(folder: Path, model: str, steps: int, words: list[str]) -> dict[str, float]:
    every = [f"training.{name}={steps}" for name in ("max_steps", "eval_steps", "save_steps")]
    command = [
        sys.executable,
        "-m",
        "llmf_hydra",
        f"model={model}",
        *COMMON,
        *every,
        *words,
        "hydra.run.dir=run",
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: {done.stderr}")
    out = folder / "run"
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf8"))
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text(encoding="utf8").splitlines()]
    speeds = [line["effective_tokens_per_second"] for line in lines if "effective_tokens_per_second" in line]
    speeds = speeds[1:] or speeds  # the first step warms up
    # Read back from the checkpoint; of BAdam, which drops its state at a switch, it is the estimate.
    state = max(_bytes(out / f"checkpoint-{steps}" / "optimizer.pt"), manifest["estimate"]["optimizer"])
    return {
        "state_mb": round(state / 1e6, 2),
        "gradients_mb": round(manifest["estimate"]["gradients"] / 1e6, 2),
        "peak_memory_mb": manifest["peak_memory_mb"],
        "tokens_per_s": round(sum(speeds) / len(speeds), 1),
        "loss": round([line["eval_loss"] for line in lines if "eval_loss" in line][-1], 4),
    }


def _bytes(file: Path) -> int:
    """Of the tensors that an optimizer has saved."""
    state: dict[str, Any] = torch.load(file, weights_only=True)["state"]
    return sum(
        value.nbytes for of in state.values() for value in of.values() if isinstance(value, torch.Tensor)
    )


def table(found: dict[str, dict[str, float]]) -> str:
    """The figures as a table in Markdown."""
    lines = [["", *COLUMNS.values()], ["---"] * (len(COLUMNS) + 1)]
    lines += [[name, *(f"{row[column]:g}" for column in COLUMNS)] for name, row in found.items()]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def plot(found: dict[str, dict[str, float]], file: Path) -> None:
    """Draw the peak memory of each row against its loss."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), dpi=120, layout="constrained")
    axes = figure.subplots()
    for name, row in found.items():
        axes.plot(row["peak_memory_mb"], row["loss"], "o", color="tab:blue")
        axes.annotate(name, (row["peak_memory_mb"], row["loss"]), xytext=(5, 4), textcoords="offset points")
    axes.set(xlabel=COLUMNS["peak_memory_mb"], ylabel="loss on held-out rows")
    axes.margins(x=0.15, y=0.1)
    figure.savefig(file)


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description="Memory, speed and loss of the optimizers.")
    parser.add_argument("model", help="the choice model=MODEL")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--plot", type=Path, help="PNG to draw")
    parser.add_argument("--table", type=Path, help="file for the table in Markdown")
    args = parser.parse_args()
    found = measure(args.model, args.steps)
    print(json.dumps(found, indent=2))
    if args.plot:
        plot(found, args.plot)
    if args.table:
        args.table.write_text(table(found), encoding="utf8")


if __name__ == "__main__":
    main()
