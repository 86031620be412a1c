"""The estimate of memory beside what runs take, from the real command line.

python -m benchmarks.estimates smollm2 [--only WORD] [--table FILE.md]
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

# The longest rows of the demo are among these, so that each run meets the batch that the estimate speaks of.
COMMON = ["data.max_samples=16", "data.val_size=0", "training.eval_strategy=no", "training.save_strategy=no",
          "training.plot_loss=false", "training.logging_steps=1", "training.warmup_ratio=0",
          "training.gradient_accumulation_steps=1"]  # fmt: skip
OFF, ON = "model.disable_gradient_checkpointing=true", "model.disable_gradient_checkpointing=false"
BATCH = "training.per_device_train_batch_size"
ROWS = {
    "sft, full, adamw, batch 4": ["stage=sft", "method=full", OFF, f"{BATCH}=4"],
    "sft, full, adamw, batch 4, checkpoints": ["stage=sft", "method=full", ON, f"{BATCH}=4"],
    "sft, full, adam_mini, batch 2, accumulated": ["stage=sft", "method=full", "optimizer=adam_mini", OFF, f"{BATCH}=2",
                                                   "training.gradient_accumulation_steps=2"],
    "sft, full, galore layerwise, batch 2": ["stage=sft", "method=full", "optimizer=galore", OFF, f"{BATCH}=2",
                                             "optimizer.galore_layerwise=true", "training.max_grad_norm=0"],
    "sft, full, badam, batch 4": ["stage=sft", "method=full", "optimizer=badam", OFF, f"{BATCH}=4"],
    "sft, freeze, batch 8, cutoff 64": ["stage=sft", "method=freeze", OFF, f"{BATCH}=8", "data.cutoff_len=64"],
    "sft, lora, batch 4": ["stage=sft", "method=lora", OFF, f"{BATCH}=4"],
    "sft, lora, batch 8, checkpoints": ["stage=sft", "method=lora", ON, f"{BATCH}=8"],
    "sft, qlora, batch 4": ["stage=sft", "method=qlora", OFF, f"{BATCH}=4"],
    "pt, lora, packs of 1,024, batch 2": ["stage=pt", "method=lora", OFF, f"{BATCH}=2", "data.cutoff_len=1024"],
    "dpo, lora, batch 4": ["stage=dpo", "method=lora", OFF, f"{BATCH}=4"],
    "dpo, full, sgd, batch 2, checkpoints": ["stage=dpo", "method=full", "optimizer=sgd", ON, f"{BATCH}=2"],
    "kto, lora, batch 4, cutoff 128": ["stage=kto", "method=lora", OFF, f"{BATCH}=4", "data.cutoff_len=128"],
    "rm, lora, batch 4": ["stage=rm", "method=lora", OFF, f"{BATCH}=4"],
    "rm, full, muon, batch 4, checkpoints": ["stage=rm", "method=full", "optimizer=muon", ON, f"{BATCH}=4"],
    "grpo, lora, batch 16, answers of 128": ["stage=grpo", "method=lora", OFF, f"{BATCH}=16", "rlhf.num_generations=8",
                                             "generation.max_new_tokens=128"],
    "sft, lora, batch 2, evaluated in 8s": ["stage=sft", "method=lora", OFF, f"{BATCH}=2", "data.val_size=8",
                                            "training.eval_strategy=steps", "training.eval_steps=4"],
}  # fmt: skip


def measure(model: str, only: str, steps: int) -> dict[str, dict[str, float]]:
    """Of each row the estimate by its parts, its total and the peak, in MB."""
    found: dict[str, dict[str, float]] = {}
    for name, words in ROWS.items():
        if only in name:
            with tempfile.TemporaryDirectory() as folder:
                found[name] = _run(
                    Path(folder), [f"model={model}", *COMMON, *words, f"training.max_steps={steps}"]
                )
            print(f"{name}: {found[name]}", file=sys.stderr, flush=True)
    return found


def _run(folder: Path, words: list[str]) -> dict[str, float]:
    last = dict(word.split("=", 1) for word in words)  # a row's own word replaces the common one
    command = [sys.executable, "-m", "llmf_hydra", *(f"{key}={value}" for key, value in last.items())]
    done = subprocess.run(
        [*command, "hydra.run.dir=run"], capture_output=True, text=True, cwd=folder, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: {done.stderr}")
    manifest = json.loads((folder / "run" / "manifest.json").read_text(encoding="utf8"))
    names = ("process", "weights", "gradients", "optimizer", "activations", "reading", "total")
    parts = {name: round(manifest["estimate"][name] / 2**20, 1) for name in names}
    peak = manifest["peak_memory_mb"]
    return {**parts, "measured": peak, "off": round(100 * (parts["total"] / peak - 1), 1)}


def table(found: dict[str, dict[str, float]]) -> str:
    """As a table in Markdown."""
    columns = list(next(iter(found.values())))
    lines = [["", *columns[:-1], "off by"], ["---"] * (len(columns) + 1)]
    lines += [
        [name, *(f"{row[c]:.0f}" for c in columns[:-1]), f"{row['off']:+.0f} %"]
        for name, row in found.items()
    ]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description="The estimate of memory beside the measured peak.")
    parser.add_argument("model", help="the choice model=MODEL")
    parser.add_argument("--only", default="", help="rows whose name holds this")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")
    parser.add_argument("--table", type=Path, help="file for the table in Markdown")
    args = parser.parse_args()
    found = measure(args.model, args.only, args.steps)
    print(json.dumps(found, indent=2) if args.json else table(found))
    if args.table:
        args.table.write_text(table(found), encoding="utf8")


if __name__ == "__main__":
    main()
