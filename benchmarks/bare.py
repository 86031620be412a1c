"""Our steps beside a bare PyTorch loop on the same rows, and rows of long-tailed lengths beside equal ones.

python -m benchmarks.bare sft_lora|sft_full|dpo_lora|long_tail smollm2

The loop is what a script would have: Transformers' model, PEFT's LoRA, AdamW, no trainer, and each row computed alone
or all of a micro-batch end to end (`--end-to-end`: positions that restart, and Transformers' own mask). Only trained
tokens go through its head too. Of dpo it knows the reference's log-probabilities. Both take turns, an optimizer step
each, in one process of one thread, and are told by the seconds of its processor: those of the clock are other
processes' too on a shared machine.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from peft import get_peft_model
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, TrainerCallback

STEPS = 8  # of each, of which the first warms up
BATCHES = ["training.per_device_train_batch_size=2", "training.gradient_accumulation_steps=2"]
COMMON = ["data.val_size=0", "training.eval_strategy=no", "training.save_strategy=no", "training.plot_loss=false",
          "training.disable_shuffling=true", "training.logging_steps=1", "training.lr_scheduler_type=constant",
          "training.warmup_ratio=0", "model.compute_dtype=float32", "model.disable_gradient_checkpointing=true",
          *BATCHES]  # fmt: skip
PARTS = {"sft_lora": ["stage=sft", "method=lora"], "sft_full": ["stage=sft", "method=full"],
         "dpo_lora": ["stage=dpo", "method=lora"]}  # fmt: skip
TAIL = (10, 4000)  # the shortest and the longest row
Row = dict[str, Any]
Loss = Callable[[list[Row]], torch.Tensor]


def trainer_of(words: list[str]) -> Any:
    """Our trainer of a command line."""
    from llmf_hydra.config import compose
    from llmf_hydra.jobs import assemble
    from llmf_hydra.stages.protocol import load_stage

    os.environ.setdefault("LLMF_CACHE", tempfile.mkdtemp())
    cfg = compose.typed(compose.composed(words))
    inputs = assemble.load_inputs(cfg)
    model = assemble.load_policy(cfg, inputs.precision, inputs.tokenizer)
    context = assemble.run_context(cfg, inputs, model, [], Path(tempfile.mkdtemp()))
    return load_stage(cfg.stage.name).build_trainer(context)


def beside(part: str, model: str, end_to_end: bool) -> dict[str, Any]:
    """Tokens per second of both, medians over the steps, and ours as a share of the loop's."""
    ours = trainer_of(
        [
            *PARTS[part],
            f"model={model}",
            *COMMON,
            f"training.max_steps={STEPS}",
            f"data.max_samples={4 * STEPS}",
        ]
    )
    loop = Loop(part, ours, end_to_end)
    turns = Turns(loop)
    ours.add_callback(turns)
    ours.train()
    losses = [line["loss"] for line in ours.state.log_history if "loss" in line]
    tokens = [sum(ours.data_collator.tokens(row) for row in rows) for rows in loop.steps]
    pairs = list(zip(tokens, turns.ours, turns.theirs, strict=True))[1:]
    return {
        "ours_tokens_per_s": round(median(count / mine for count, mine, _ in pairs), 1),
        "bare_tokens_per_s": round(median(count / theirs for count, _, theirs in pairs), 1),
        "share": round(median(theirs / mine for _, mine, theirs in pairs), 3),
        "shares": [round(theirs / mine, 3) for _, mine, theirs in pairs],
        "losses": [[round(one, 5), round(other, 5)] for one, other in zip(losses, loop.losses, strict=True)],
    }


class Loop:
    """The bare loop, a step at a time."""

    def __init__(self, part: str, ours: Any, end_to_end: bool):
        parts = ours.context
        rows, size = list(ours.train_dataset), ours.args.per_device_train_batch_size
        per_step = size * ours.args.gradient_accumulation_steps
        self.steps = [rows[at : at + per_step] for at in range(0, STEPS * per_step, per_step)]
        self.size, self.end_to_end, self.losses = size, end_to_end, []
        loaded = AutoModelForCausalLM.from_pretrained(
            parts.model.config.name_or_path, dtype=torch.float32, attn_implementation="sdpa"
        )
        self.model: Any = loaded
        if "lora" in part:
            self.model = get_peft_model(loaded, ours.model.peft_config["default"])
        self.model.train()
        self.base = loaded
        weights = [weight for weight in self.model.parameters() if weight.requires_grad]
        self.weights, self.optimizer = (
            weights,
            torch.optim.AdamW(
                weights, lr=ours.args.learning_rate, weight_decay=parts.cfg.optimizer.weight_decay
            ),
        )
        self.clip = ours.args.max_grad_norm
        self.loss = self._language if part.startswith("sft") else self._preference
        self.beta = parts.cfg.rlhf.pref_beta
        self.known: dict[int, torch.Tensor] = {}
        if part.startswith("dpo"):
            with torch.no_grad(), self.model.disable_adapter():
                self.known = {id(row): self._answers([row]) for step in self.steps for row in step}

    def __call__(self, rows: list[Row]) -> None:
        """An optimizer step on its rows."""
        terms = len(rows)
        if not self.known:
            terms = sum(label != -100 for row in rows for label in row["labels"][1:])
        total = 0.0
        for batch in self._batches(rows):
            loss = self.loss(batch) / terms
            loss.backward()
            total += float(loss.detach())
        torch.nn.utils.clip_grad_norm_(self.weights, self.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.losses.append(total)

    def _batches(self, rows: list[Row]) -> Iterator[list[Row]]:
        size = self.size if self.end_to_end else 1
        yield from (rows[at : at + size] for at in range(0, len(rows), size))

    def _log_probs(self, ids: list[list[int]], targets: list[list[int]]) -> list[torch.Tensor]:
        """Log-probabilities of the targets that aren't -100, of each row; `ids` end to end, or a single row."""
        line, wanted = torch.tensor([sum(ids, [])]), torch.tensor(sum(targets, []))
        positions = torch.cat([torch.arange(len(row)) for row in ids])[None]
        states = self.base.model(input_ids=line, position_ids=positions, use_cache=False).last_hidden_state[0]
        trained = wanted != -100
        found = -F.cross_entropy(self.base.lm_head(states[trained]), wanted[trained], reduction="none")
        return list(found.split([sum(target != -100 for target in row) for row in targets]))

    def _language(self, rows: list[Row]) -> torch.Tensor:
        targets = [[*row["labels"][1:], -100] for row in rows]
        return -torch.cat(self._log_probs([row["input_ids"] for row in rows], targets)).sum()

    def _answers(self, rows: list[Row]) -> torch.Tensor:
        """Log-probabilities of the chosen and the rejected answers, (rows, 2)."""
        ids, targets = [], []
        for row in rows:
            for answer in (row["chosen_ids"], row["rejected_ids"]):
                ids.append([*row["prompt_ids"], *answer[:-1]])
                targets.append([-100] * (len(row["prompt_ids"]) - 1) + [*answer])
        if self.end_to_end:
            found = self._log_probs(ids, targets)
        else:
            found = [self._log_probs([one], [other])[0] for one, other in zip(ids, targets, strict=True)]
        return torch.stack([answer.sum() for answer in found]).view(len(rows), 2)

    def _preference(self, rows: list[Row]) -> torch.Tensor:
        h = self._answers(rows) - torch.cat([self.known[id(row)] for row in rows])
        return -F.logsigmoid(self.beta * (h[:, 0] - h[:, 1])).sum()


class Turns(TrainerCallback):
    """After each of our steps the loop makes one on the same rows."""

    def __init__(self, loop: Loop):
        self.loop = loop
        self.ours: list[float] = []
        self.theirs: list[float] = []
        self._since = 0.0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._since = time.process_time()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        now = time.process_time()
        self.ours.append(now - self._since)
        begun = time.process_time()
        self.loop(self.loop.steps[len(self.theirs)])
        self.theirs.append(time.process_time() - begun)
        self._since = time.process_time()


def long_tailed(total: int, seed: int = 0) -> list[int]:
    """Row lengths, log-normal and cut to TAIL, with the longest row among them; their sum is about `total`."""
    made, lengths = np.random.default_rng(seed), [TAIL[1]]
    while sum(lengths) < total:
        lengths.append(int(np.clip(made.lognormal(5.0, 1.2), *TAIL)))
    made.shuffle(lengths)
    return lengths


def long_tail(model: str, total: int) -> dict[str, Any]:
    """Tokens per second of rows of long-tailed lengths and of as many equal ones of the same sum, by turns; also
    without the attention, whose cost grows with the squares of the lengths, as `attention_seconds` measures it."""
    tailed = long_tailed(total)
    equal = [sum(tailed) // len(tailed)] * len(tailed)
    words = [*PARTS["sft_lora"], f"model={model}", *COMMON, "data.cutoff_len=4096"]
    trainer = trainer_of([*words, "training.num_train_epochs=1", "data.max_samples=8"])
    kinds = {"long_tail": tailed, "equal": equal}
    attention = {name: attention_seconds(trainer.model.config, lengths) for name, lengths in kinds.items()}
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(2):
        for name, lengths in kinds.items():
            trainer.train_dataset = _random_rows(lengths, trainer.model.config.vocab_size)
            begun = time.process_time()
            trainer.train()
            seconds[name].append(time.process_time() - begun)
    speeds = {name: sum(kinds[name]) / min(spent) for name, spent in seconds.items()}
    rest = {name: sum(kinds[name]) / (min(spent) - attention[name]) for name, spent in seconds.items()}
    return {
        "rows": len(tailed), "tokens": sum(tailed), "longest": max(tailed), "median": median(tailed),
        "seconds": {name: [round(one, 1) for one in spent] for name, spent in seconds.items()},
        "attention_seconds": {name: round(one, 1) for name, one in attention.items()},
        "share_of_equal": round(speeds["long_tail"] / speeds["equal"], 3),
        "share_without_attention": round(rest["long_tail"] / rest["equal"], 3),
    }  # fmt: skip


def attention_seconds(config: Any, lengths: list[int]) -> float:
    """Seconds of the bare attention kernel, forward and backward, in all layers of a model, for rows of these."""
    heads, size = config.num_attention_heads, config.hidden_size // config.num_attention_heads
    spent: dict[int, float] = {}
    for length in sorted(set(lengths)):
        states = [torch.randn(1, heads, length, size, requires_grad=True) for _ in range(3)]
        best = float("inf")
        for _ in range(3 if length < 1000 else 1):
            begun = time.process_time()
            F.scaled_dot_product_attention(*states, is_causal=True).sum().backward()  # pyright: ignore[reportArgumentType]
            best = min(best, time.process_time() - begun)
        spent[length] = best
    return config.num_hidden_layers * sum(spent[length] for length in lengths)


def _random_rows(lengths: list[int], vocabulary: int) -> Dataset:
    made = np.random.default_rng(1)
    rows = [made.integers(10, vocabulary, length).tolist() for length in lengths]
    return Dataset.from_dict(
        {"input_ids": rows, "labels": rows, "row": list(range(len(rows))), "source": [0] * len(rows)}
    )


def main() -> None:
    """Measure in this process, and print JSON."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("part", choices=[*PARTS, "long_tail"])
    words.add_argument("model")
    words.add_argument("--end-to-end", action="store_true")
    words.add_argument("--tokens", type=int, default=9000, help="Of long_tail: tokens of all rows.")
    asked = words.parse_args()
    torch.set_num_threads(1)
    if asked.part == "long_tail":
        print(json.dumps(long_tail(asked.model, asked.tokens)))
    else:
        print(json.dumps(beside(asked.part, asked.model, asked.end_to_end)))


if __name__ == "__main__":
    main()
