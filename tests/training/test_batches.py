"""The tokens of a batch are those that the model computes: no padding, and a shared prompt once."""

import pytest
import torch
from support.stage_runs import Build


@pytest.mark.parametrize("stage", ["pt", "sft", "rm", "dpo", "kto"])
def test_tokens_are_those_without_padding(stage: str, build: Build) -> None:
    trainer = build(f"stage={stage}", "data.max_samples=20", "data.packing=false", "data.val_size=0",
                    "training.eval_strategy=no")  # fmt: skip
    batch = trainer.data_collator([trainer.train_dataset[at] for at in range(4)])
    computed = (batch["side"] != 3) if "side" in batch else batch["attention_mask"]
    assert batch["tokens"] == int(computed.sum()) < batch["input_ids"].numel()
    assert len(batch["rows"]) == 4


def test_pairs_in_two_sequences_count_the_prompt_twice() -> None:
    from llmf_hydra.stages.rm import ScoredCollator
    from llmf_hydra.training.pairs import PairCollator

    row = {"prompt_ids": [1, 2, 3], "chosen_ids": [4, 5], "rejected_ids": [6]}
    for collate in (PairCollator(0, False), ScoredCollator(0, False)):
        assert collate.tokens(row) == int(torch.as_tensor(collate([row])["attention_mask"]).sum())
