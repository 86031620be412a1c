"""LLaMA-Factory's own training of the demo rows, in the environment whose Python LLAMAFACTORY_PYTHON names.

It reads the same files (data/dataset_info.json has its layout) and makes rows of its own; it is asked by the arguments
of its command line, and told about its turns by a callback. Nothing of ours is imported but `turns`.
"""

import json
import sys
import tempfile
from typing import Any

from benchmarks.turns import ROOT, Steps

STAGES = {"sft": {}, "dpo": {"pref_loss": "sigmoid"}, "kto": {}, "rm": {}}


def arguments(asked: dict[str, Any]) -> dict[str, Any]:
    """The arguments of `llamafactory-cli train`; with `shipped`, activations are recomputed as its default has it."""
    lora = {"lora_rank": asked["lora_rank"], "lora_alpha": asked["lora_alpha"], "lora_target": "all"}
    return {
        "stage": asked["stage"],
        "do_train": True,
        "model_name_or_path": asked["model"],
        "template": "smollm2",
        "dataset": asked["dataset"],
        "dataset_dir": str(ROOT / "data"),
        "max_samples": asked["rows"],
        "cutoff_len": asked["cutoff_len"],
        "overwrite_cache": True,
        "disable_shuffling": True,
        "finetuning_type": asked["method"],
        **(lora if asked["method"] == "lora" else {}),
        **STAGES[asked["stage"]],
        "per_device_train_batch_size": asked["batch"],
        "gradient_accumulation_steps": asked["accumulation"],
        "max_steps": asked["steps"],
        "learning_rate": asked["learning_rate"],
        "logging_steps": 1000,
        "save_strategy": "no",
        "report_to": "none",
        "output_dir": tempfile.mkdtemp(),
        **({} if asked["shipped"] else {"disable_gradient_checkpointing": not asked["recomputes"]}),
    }


def main(asked: dict[str, Any]) -> None:
    """Train by turns."""
    steps = Steps()
    from llamafactory.train.tuner import run_exp  # pyright: ignore[reportMissingImports]

    turn = steps.callback()

    class Ready(type(turn)):
        def on_train_begin(self, args: Any, *_: Any, **told: Any) -> None:
            rows = told["train_dataloader"].dataset
            lists = [key for key in rows[0] if key.endswith("input_ids")]
            tokens = {key: sum(len(row[key]) for row in rows) for key in lists}
            steps.begin({"tokens": tokens, "device": args.device.type})

    run_exp(arguments(asked), callbacks=[Ready()])
    steps.finish()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
