"""TRL's own trainers on our tokenized rows, in our order, with the same weights, precision and adapter."""

import copy
import json
import sys
import tempfile
from typing import Any

from benchmarks.peers.ours import facts, trainer_of
from benchmarks.turns import Steps

TRAINERS = {"sft": "SFT", "dpo": "DPO", "kto": "KTO", "rm": "Reward"}
SAME = ("per_device_train_batch_size", "gradient_accumulation_steps", "max_steps", "learning_rate", "bf16", "use_cpu",
        "logging_steps", "train_sampling_strategy", "save_strategy", "optim", "max_grad_norm")  # fmt: skip


def trainer_like(stage: str, ours: Any, shipped: bool) -> Any:
    """TRL's trainer with our settings; with `shipped`, activations are recomputed as its own default has it.

    The model is loaded anew and gets the same LoRA; nothing else is TRL's default but what our config has no word for.
    """
    import trl

    parts = ours.context
    trainer = getattr(trl, f"{TRAINERS[stage]}Trainer")

    class Tokenized(trainer):
        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            return dataset

    same = {key: getattr(ours.args, key) for key in SAME}
    if not shipped:
        same["gradient_checkpointing"] = ours.args.activation_checkpointing
    more = {"dataset_kwargs": {"skip_prepare_dataset": True}} if stage == "sft" else {}
    arguments = getattr(trl, f"{TRAINERS[stage]}Config")(
        output_dir=tempfile.mkdtemp(), report_to=[], disable_tqdm=True, max_length=None, **same, **more
    )
    rows = _as_trl_wants(stage, ours.train_dataset, arguments.per_device_train_batch_size)
    return Tokenized(
        model=_model(stage, ours), args=arguments, train_dataset=rows, processing_class=parts.tokenizer
    )


def _model(stage: str, ours: Any) -> Any:
    """The model of a run, loaded anew, with its adapter where it has one."""
    from peft import get_peft_model

    from llmf_hydra.models.load import load_model, load_scorer

    parts = ours.context
    cfg, dtype = parts.cfg.model, parts.precision.weights
    model = load_scorer(cfg, dtype, parts.tokenizer) if stage == "rm" else load_model(cfg, dtype)
    configs = getattr(ours.model, "peft_config", None)
    return get_peft_model(model, configs["default"]) if configs else model


def _as_trl_wants(stage: str, rows: Any, size: int) -> Any:
    if stage == "kto":  # TRL mismatches answers within a batch while it tokenizes
        answers = list(rows["completion_ids"])
        groups = [answers[at : at + size] for at in range(0, len(answers), size)]
        return rows.add_column("KL_completion_ids", [one for g in groups for one in (g[-1], *g[:-1])])
    if stage == "rm":
        return rows.map(
            lambda row: {
                f"{side}_ids": row["prompt_ids"] + row[f"{side}_ids"] for side in ("chosen", "rejected")
            }
        )
    return rows


def groups_like(ours: Any) -> Any:
    """TRL's GRPOTrainer as a script starts it: texts for prompts, a plain function for the reward, our settings."""
    from datasets import Dataset
    from trl import GRPOTrainer

    parts, arguments = ours.context, copy.copy(ours.args)
    arguments.output_dir = tempfile.mkdtemp()
    rows = [
        {
            "prompt": parts.tokenizer.decode(row["prompt_ids"]),
            "answer": json.loads(row["columns"])["answer"],
        }
        for row in parts.train
    ]

    def exact_match(completions: list[str], answer: list[str], **_: Any) -> list[float | None]:
        return [
            float(said.strip() == wanted.strip()) for said, wanted in zip(completions, answer, strict=True)
        ]

    return GRPOTrainer(
        model=_model("grpo", ours),
        reward_funcs=exact_match,
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=parts.tokenizer,
    )


def main(asked: dict[str, Any]) -> None:
    """Train by turns."""
    steps, ours = Steps(), trainer_of(asked["words"])
    stage = ours.context.cfg.stage.name
    if stage == "grpo":
        steps.run(groups_like(ours), {"device": ours.args.device.type})
        return
    theirs = trainer_like(stage, ours, asked["shipped"])
    told = {**facts(ours), "recomputes": theirs.args.gradient_checkpointing}
    del ours
    steps.run(theirs, told)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
