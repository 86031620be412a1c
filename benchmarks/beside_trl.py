"""Steps of our trainers and of TRL's own, by turns in one process: same model, rows, order, precision and LoRA.

`python -m benchmarks.beside_trl STAGE` is one process of it.
"""

import copy
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

STEPS = 3  # that are timed, after one that warms up
ROWS = ["data.max_samples=16", "data.val_size=0", "training.eval_strategy=no", "training.save_strategy=no",
        "training.disable_shuffling=true", "training.per_device_train_batch_size=4", "training.logging_steps=1000",
        "training.plot_loss=false", f"training.max_steps={STEPS + 1}"]  # fmt: skip
# Two prompts a step, eight answers each.
GROUPS = ["data.dataset=demo_grpo", "data.max_samples=64", "rlhf.rewards=[exact_match]", "rlhf.num_generations=8",
          "training.per_device_train_batch_size=16", "generation.max_new_tokens=16"]  # fmt: skip
TRAINERS = {"sft": "SFT", "dpo": "DPO", "kto": "KTO", "rm": "Reward"}


def measure(model: str) -> dict[str, Any]:
    """TRL's seconds over ours for each stage; for dpo also over two epochs of the same rows; PPO's rollouts."""
    parts = [*TRAINERS, "two epochs of dpo", "grpo", "ppo"]
    return {part: _child(part, model) for part in parts}


def _child(part: str, model: str) -> dict[str, float]:
    words = [sys.executable, "-m", "benchmarks.beside_trl", part, model]
    done = subprocess.run(words, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    return json.loads(done.stdout.splitlines()[-1])


def main(part: str, model: str) -> dict[str, float]:
    """Measure in this process."""
    words = [f"model={model}", *ROWS]
    if part == "ppo":
        return _rollouts(words)
    if part == "two epochs of dpo":
        return _two_epochs([*words, f"data.max_samples={2 * STEPS}", f"training.max_steps={2 * STEPS}",
                            "training.per_device_train_batch_size=2"])  # fmt: skip
    if part == "grpo":
        words += GROUPS
    bare = _bare_groups(_ours(part, words)) if part == "grpo" else _theirs(part, _ours(part, words))
    mine, theirs = _seconds_a_step(_ours(part, words)), _seconds_a_step(bare)
    return {"step_s": round(mine, 3), "trl_step_s": round(theirs, 3), "times_trl": round(theirs / mine, 2)}


def _two_epochs(words: list[str]) -> dict[str, float]:
    """Each row is seen twice: ours asks the reference once, before the first step, and TRL's in every step."""
    ours, trl = _seconds(_ours("dpo", words)), _seconds(_theirs("dpo", _ours("dpo", words)))
    return {"s": round(ours, 2), "trl_s": round(trl, 2), "times_trl": round(trl / ours, 2)}


def _ours(stage: str, words: list[str]) -> Any:
    from llmf_hydra.config import compose
    from llmf_hydra.jobs import assemble
    from llmf_hydra.stages.protocol import load_stage

    os.environ["LLMF_CACHE"] = tempfile.mkdtemp()  # nothing is kept from an earlier run
    cfg = compose.typed(compose.composed([f"stage={stage}", *words]))
    inputs = assemble.load_inputs(cfg)
    model = assemble.load_policy(cfg, inputs.precision, inputs.tokenizer)
    return load_stage(stage).build_trainer(
        assemble.run_context(cfg, inputs, model, [], Path(tempfile.mkdtemp()))
    )


def _theirs(stage: str, ours: Any) -> Any:
    """TRL's trainer of the same rows, with a model that is loaded anew and gets the same LoRA."""
    import trl
    from peft import get_peft_model

    from llmf_hydra.models.load import load_model, load_scorer

    parts, name = ours.context, TRAINERS[stage]
    dtype = parts.precision.weights
    scorer = (load_scorer, (parts.cfg.model, dtype, parts.tokenizer))
    load, given = scorer if stage == "rm" else (load_model, (parts.cfg.model, dtype))
    model = get_peft_model(load(*given), ours.model.peft_config["default"])
    trainer = getattr(trl, f"{name}Trainer")

    class Tokenized(trainer):
        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            return dataset

    same = {key: getattr(ours.args, key) for key in (
        "per_device_train_batch_size", "max_steps", "learning_rate", "bf16", "use_cpu", "logging_steps",
        "train_sampling_strategy", "save_strategy", "optim", "max_grad_norm")}  # fmt: skip
    more = {"dataset_kwargs": {"skip_prepare_dataset": True}} if stage == "sft" else {}
    arguments = getattr(trl, f"{name}Config")(
        output_dir=tempfile.mkdtemp(), report_to=[], disable_tqdm=True, max_length=None,
        gradient_checkpointing=ours.args.activation_checkpointing, **same, **more,
    )  # fmt: skip
    rows = _as_trl_wants(stage, ours.train_dataset, arguments.per_device_train_batch_size)
    return Tokenized(model=model, args=arguments, train_dataset=rows, processing_class=parts.tokenizer)


def _bare_groups(ours: Any) -> Any:
    """TRL's GRPOTrainer as a script starts it: texts for prompts, a plain function for the reward, our settings."""
    from datasets import Dataset
    from peft import get_peft_model
    from trl import GRPOTrainer

    from llmf_hydra.models.load import load_model

    parts, arguments = ours.context, copy.copy(ours.args)
    arguments.output_dir = tempfile.mkdtemp()
    model = get_peft_model(
        load_model(parts.cfg.model, parts.precision.weights), ours.model.peft_config["default"]
    )
    rows = [
        {
            "prompt": parts.tokenizer.decode(row["prompt_ids"]),
            "answer": json.loads(row["columns"])["answer"],
        }
        for row in parts.train
    ]

    def exact_match(completions: list[str], answer: list[str], **_: Any) -> list[float]:
        return [
            float(said.strip() == wanted.strip()) for said, wanted in zip(completions, answer, strict=True)
        ]

    return GRPOTrainer(
        model=model,
        reward_funcs=exact_match,
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=parts.tokenizer,
    )


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


def _seconds_a_step(trainer: Any) -> float:
    from transformers import TrainerCallback

    ends: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            ends.append(time.perf_counter())

    trainer.add_callback(Clock())
    trainer.train()
    return (ends[-1] - ends[0]) / (len(ends) - 1)


def _seconds(trainer: Any) -> float:
    before = time.perf_counter()
    trainer.train()
    return time.perf_counter() - before


def _rollouts(words: list[str], rounds: int = 3) -> dict[str, float]:
    """Tokens a second of PPO's rollouts, as a share of a bare `generate` of the same prompts."""
    import torch

    from llmf_hydra.training.generation import roll_out, sampling, seeded

    trainer = _ours("sft", [*words, "generation.max_new_tokens=32"])
    parts = trainer.context
    policy, how = parts.model.eval(), sampling(parts.cfg.generation, parts.model, parts.tokenizer)
    prompts = [row["input_ids"][:48] for row in parts.train.select(range(8))]
    width = max(map(len, prompts))
    ids = torch.tensor([[parts.pad_id] * (width - len(row)) + row for row in prompts])
    inputs = {"input_ids": ids, "attention_mask": torch.tensor(
        [[0] * (width - len(row)) + [1] * len(row) for row in prompts])}  # fmt: skip
    how.config.max_new_tokens = 32

    def timed(work: Any) -> float:
        with seeded(0, ids.device), torch.no_grad():
            before = time.perf_counter()
            work()
            return time.perf_counter() - before

    def ours() -> None:
        roll_out(policy, prompts, how)

    def bare() -> None:
        policy.generate(**inputs, generation_config=how.config)

    timed(bare)
    shares = sorted(timed(bare) / timed(ours) for _ in range(rounds))
    return {"of_bare_generate": round(shares[len(shares) // 2], 3)}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], sys.argv[2])))
