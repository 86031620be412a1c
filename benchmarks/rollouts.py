"""PPO's rollouts beside a bare `generate` of the same prompts.

python -m benchmarks.rollouts MODEL
"""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.beside import BATCH, COMMON, spread
from benchmarks.peers.ours import trainer_of

TOKENS = 32  # of each answer


def measure(model: str) -> dict[str, Any]:
    """Tokens per second of the rollouts as a share of the bare call's: median, lowest, highest."""
    words = [sys.executable, "-m", "benchmarks.rollouts", model]
    done = subprocess.run(words, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    return json.loads(done.stdout.splitlines()[-1])


def main(model: str, rounds: int = 3) -> dict[str, Any]:
    """Measure in this process."""
    import torch

    from llmf_hydra.training.generation import roll_out, sampling, seeded

    trainer = trainer_of(["stage=sft", f"model={model}", *COMMON, "data.max_samples=16", "training.max_steps=4",
                          f"training.per_device_train_batch_size={BATCH}",
                          f"generation.max_new_tokens={TOKENS}"])  # fmt: skip
    parts = trainer.context
    policy, how = parts.model.eval(), sampling(parts.cfg.generation, parts.model, parts.tokenizer)
    prompts = [row["input_ids"][:48] for row in parts.train.select(range(8))]
    width = max(map(len, prompts))
    ids = torch.tensor([[parts.pad_id] * (width - len(row)) + row for row in prompts])
    inputs = {"input_ids": ids, "attention_mask": torch.tensor(
        [[0] * (width - len(row)) + [1] * len(row) for row in prompts])}  # fmt: skip
    how.config.max_new_tokens = TOKENS

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
    return {"of_bare_generate": spread([timed(bare) / timed(ours) for _ in range(rounds)])}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
