"""The tokens of a batch are those that the model computes: no padding, and a shared prompt once."""

import pytest
import torch
from support.stage_runs import Build


@pytest.mark.parametrize("stage", ["pt", "sft", "rm", "dpo", "kto"])
def test_tokens_are_those_without_padding(stage: str, build: Build) -> None:
    """End to end no token is padding; below each other, in another attention, some are."""
    tokens = []
    for attention, padded in (("auto", False), ("disabled", True)):
        trainer = build(f"stage={stage}", "data.max_samples=20", "data.packing=false", "data.val_size=0",
                        "training.eval_strategy=no", f"model.flash_attn={attention}")  # fmt: skip
        batch = trainer.data_collator([trainer.train_dataset[at] for at in range(4)])
        computed = (batch["side"] != 3) if "side" in batch else batch["attention_mask"]
        assert batch["tokens"] == int(computed.sum())
        assert (batch["tokens"] < batch["input_ids"].numel()) is padded
        assert len(batch["rows"]) == 4
        tokens.append(batch["tokens"])
    assert tokens[0] == tokens[1]


def test_pairs_in_two_sequences_count_the_prompt_twice() -> None:
    from llmf_hydra.stages.rm import ScoredCollator
    from llmf_hydra.training.pairs import PairCollator

    row = {"prompt_ids": [1, 2, 3], "chosen_ids": [4, 5], "rejected_ids": [6]}
    for collate in (PairCollator(0, False), ScoredCollator(0, False)):
        assert collate.tokens(row) == int(torch.as_tensor(collate([row])["attention_mask"]).sum())
