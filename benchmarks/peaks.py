"""Peak memory and speed of a stage beside TRL's own trainer with gradient checkpointing: same model, rows, order,
batch, precision and LoRA, each trainer in a process of its own, by turns.

python -m benchmarks.peaks smollm2 [--only WORD] [--pairs 3] [--table FILE.md] [--own KEY=VALUE ...]

Words after `--own` go to our trainer alone, such as `training.activation_memory=0`.
"""

import argparse
import copy
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.peers.trl import TRAINERS

STEPS = 3  # that are timed, after one that warms up
ROWS = ["data.max_samples=16", "data.val_size=0", "training.eval_strategy=no", "training.save_strategy=no",
        "training.disable_shuffling=true", "training.per_device_train_batch_size=4", "training.logging_steps=1000",
        "training.plot_loss=false", f"training.max_steps={STEPS + 1}"]  # fmt: skip

BATCHES = (4, 8)
CASES = {
    f"{stage} {method}, batch {batch}": (stage, method, batch)
    for batch in BATCHES
    for stage, method in (("sft", "lora"), ("sft", "full"), ("dpo", "lora"))
}
# Of a process's peak: all of it, and what is above the moment before the model is loaded; then the steps' alone.
MEMORY = ("peak_mb", "above_mb", "steps_mb")
SIDES = ("ours", "trl")


def measure(model: str, only: str = "", pairs: int = 1, own: tuple[str, ...] = ()) -> dict[str, Any]:
    """Of each case the medians of both sides, and ours over TRL's: memory below 1 and speed above 1 are better."""
    found: dict[str, Any] = {}
    for name, case in CASES.items():
        if only not in name:
            continue
        turns: list[dict[str, dict[str, float]]] = []
        for pair in range(pairs):
            order = SIDES if pair % 2 == 0 else SIDES[::-1]
            turns.append({side: _child(side, model, *case, own if side == "ours" else ()) for side in order})
            print(f"{name}: {json.dumps(turns[-1])}", file=sys.stderr, flush=True)
        found[name] = _summary(turns)
    return found


def _summary(turns: list[dict[str, dict[str, float]]]) -> dict[str, Any]:
    sides = {
        side: {key: round(median(turn[side][key] for turn in turns), 3) for key in turns[0][side]}
        for side in SIDES
    }
    ratios = {key: median(turn["ours"][key] / turn["trl"][key] for turn in turns) for key in MEMORY}
    speeds = {
        key.removesuffix("_s") + "_times_trl": median(turn["trl"][key] / turn["ours"][key] for turn in turns)
        for key in ("step_s", "train_s")
    }
    return {**sides, "ratio": {key: round(value, 3) for key, value in (ratios | speeds).items()}}


def _child(
    side: str, model: str, stage: str, method: str, batch: int, own: tuple[str, ...]
) -> dict[str, float]:
    words = [
        sys.executable,
        "-m",
        "benchmarks.peaks",
        "--child",
        side,
        model,
        stage,
        method,
        str(batch),
        *own,
    ]
    done = subprocess.run(words, check=False, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: {done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def child(side: str, model: str, stage: str, method: str, batch: int, own: list[str]) -> dict[str, float]:
    """Train in this process and tell its memory, in MiB, and its seconds."""
    os.environ["LLMF_CACHE"] = os.environ.get("LLMF_PEAKS_CACHE") or tempfile.mkdtemp()
    from llmf_hydra.config import compose
    from llmf_hydra.jobs import assemble

    words = [f"stage={stage}", f"model={model}", f"method={method}", *ROWS]
    words = [word for word in words if not word.startswith("training.per_device_train_batch_size")]
    rows = (STEPS + 1) * batch  # no batch meets a row again
    words += [f"training.per_device_train_batch_size={batch}", f"data.max_samples={rows}", *own]
    cfg = compose.typed(compose.composed(words))
    inputs = assemble.load_inputs(cfg)
    trainer_of = _ours if side == "ours" else _theirs
    prepared = trainer_of(cfg, inputs)
    gc.collect()
    before = _status("VmRSS")
    trainer = prepared()
    found = _train(trainer)
    return {**found, "before_mb": before, "above_mb": found["peak_mb"] - before}


def _ours(cfg: Any, inputs: Any) -> Any:
    from llmf_hydra.jobs import assemble
    from llmf_hydra.stages.protocol import load_stage

    stage, out = load_stage(cfg.stage.name), Path(tempfile.mkdtemp())

    def build() -> Any:
        model = assemble.load_policy(cfg, inputs.precision, inputs.tokenizer)
        return stage.build_trainer(assemble.run_context(cfg, inputs, model, [], out))

    return build


def _theirs(cfg: Any, inputs: Any) -> Any:
    """TRL's trainer as a script starts it, once its libraries are imported; nothing of ours is alive by then."""
    import torch
    import trl
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM

    from llmf_hydra.jobs import assemble
    from llmf_hydra.models.load import load_config
    from llmf_hydra.models.sources import hubs
    from llmf_hydra.training.arguments import training_arguments

    name = TRAINERS[cfg.stage.name]
    trainer, config = getattr(trl, f"{name}Trainer"), getattr(trl, f"{name}Config")
    adapter: Any = None
    with torch.device("meta"):
        bare = AutoModelForCausalLM.from_config(load_config(cfg.model))
        trainable = assemble._trainable(cfg, bare)
        if cfg.method.name == "lora":
            adapter = copy.deepcopy(trainable.peft_config["default"])
        ours = training_arguments(assemble.run_context(cfg, inputs, trainable, [], Path(tempfile.mkdtemp())))
    folder, dtype, rows = hubs.folder_of(cfg.model, weights=True), inputs.precision.weights, inputs.rows.train

    class Tokenized(trainer):
        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            return dataset

    same = {key: getattr(ours, key) for key in (
        "per_device_train_batch_size", "max_steps", "learning_rate", "bf16", "use_cpu", "logging_steps",
        "train_sampling_strategy", "save_strategy", "optim", "max_grad_norm",
        "lr_scheduler_type", "warmup_steps")}  # fmt: skip
    more = {"dataset_kwargs": {"skip_prepare_dataset": True}} if cfg.stage.name == "sft" else {}
    arguments = config(
        output_dir=tempfile.mkdtemp(), report_to=[], disable_tqdm=True, max_length=None,
        gradient_checkpointing=True, **same, **more,
    )  # fmt: skip

    def build() -> Any:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
        model = model if adapter is None else get_peft_model(model, adapter)
        return Tokenized(model=model, args=arguments, train_dataset=rows, processing_class=inputs.tokenizer)

    return build


def _train(trainer: Any) -> dict[str, float]:
    from transformers import TrainerCallback

    ends: list[float] = []
    loading = _status("VmHWM")

    class Clock(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            if not ends:
                Path("/proc/self/clear_refs").write_text("5", encoding="utf8")  # the peak counts from now on

        def on_step_end(self, *_: Any, **__: Any) -> None:
            ends.append(time.perf_counter())

    trainer.add_callback(Clock())
    begun = time.perf_counter()
    trainer.train()
    taken = time.perf_counter() - begun
    steps = _status("VmHWM")
    losses = [line["train_loss"] for line in trainer.state.log_history if "train_loss" in line]
    return {
        "peak_mb": max(loading, steps),
        "loading_mb": loading,
        "steps_mb": steps,
        "step_s": (ends[-1] - ends[0]) / (len(ends) - 1),
        "train_s": taken,  # the reference's pass, which ours makes before the first step, is in there
        "loss": losses[-1],
    }


def _status(name: str) -> float:
    """A line of this process's status, in MiB."""
    lines = Path("/proc/self/status").read_text(encoding="utf8").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:"))


def table(found: dict[str, Any]) -> str:
    """As a table in Markdown."""
    columns = ["ours, MB", "TRL, MB", "all", "above the start", "steps alone", "times as fast a step"]
    lines = [["", *columns], ["---"] * (len(columns) + 1)]
    for name, row in found.items():
        ratio = row["ratio"]
        figures = [f"{row[side]['peak_mb']:.0f}" for side in SIDES]
        figures += [f"{ratio[key]:.2f}" for key in (*MEMORY, "step_times_trl")]
        lines.append([name, *figures])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main() -> None:
    """Measure and print JSON."""
    if sys.argv[1:2] == ["--child"]:
        side, model, stage, method, batch, *own = sys.argv[2:]
        print(json.dumps(child(side, model, stage, method, int(batch), own)))
        return
    parser = argparse.ArgumentParser(description="Peak memory and speed beside TRL's trainers.")
    parser.add_argument("model", help="the choice model=MODEL")
    parser.add_argument("--only", default="", help="cases whose name holds this")
    parser.add_argument("--pairs", type=int, default=1)
    parser.add_argument("--table", type=Path, help="file for the table in Markdown")
    parser.add_argument("--own", nargs="*", default=(), help="words for our trainer alone")
    args = parser.parse_args()
    found = measure(args.model, args.only, args.pairs, tuple(args.own))
    print(json.dumps(found, indent=2))
    if args.table:
        args.table.write_text(table(found), encoding="utf8")


if __name__ == "__main__":
    main()
