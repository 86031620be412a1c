"""`method.loraplus_lr_ratio`: the learning rates of A, B and embedding adapters, in a run and in a resumed one."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft.optimizers import create_loraplus_optimizer
from support.stage_runs import SGD, Build, composed

from llmf_hydra import refusals
from llmf_hydra.errors import Refused

SFT = ["stage=sft", *SGD, "optimizer=adamw", "training.learning_rate=0.001", "method=loraplus"]
EMBEDDED = ["method.lora_target='embed_tokens,q_proj'", "method.loraplus_lr_embedding=0.0005"]


def rates(optimizer: Any, model: Any) -> dict[str, float]:
    """The learning rate of each trained weight."""
    names = {id(weight): name for name, weight in model.named_parameters()}
    return {names[id(w)]: group["lr"] for group in optimizer.param_groups for w in group["params"]}


@pytest.mark.parametrize("more", [EMBEDDED, ["method.use_dora=true"]], ids=["embedding", "dora"])
def test_the_groups_are_those_of_peft(build: Build, more: list[str]) -> None:
    trainer = build(*SFT, *more)
    theirs = create_loraplus_optimizer(
        trainer.model, torch.optim.AdamW, lr=0.001, loraplus_lr_ratio=16.0, loraplus_lr_embedding=0.0005
    )
    found = rates(trainer.create_optimizer(), trainer.model)
    assert found == rates(theirs, trainer.model)
    assert set(found.values()) == ({0.001, 0.016, 0.0005} if more is EMBEDDED else {0.001, 0.016})


def test_null_gives_embeddings_the_rate_of_the_run(build: Build) -> None:
    words = [*SFT, "method.lora_target='embed_tokens,q_proj'", "method.loraplus_lr_embedding=null"]
    trainer = build(*words)
    found = rates(trainer.create_optimizer(), trainer.model)
    assert {rate for name, rate in found.items() if "embedding" in name} == {0.001}


def test_the_ratio_acts_from_the_second_step_on(build: Build) -> None:
    """Adam's first step is as long as the rate, so B moves 16 times as far as without LoRA+."""
    moved = {}
    for ratio in (1.0, 16.0):
        trainer = build(*SFT, f"method.loraplus_lr_ratio={ratio}", "training.max_steps=1")
        before = {name: weight.detach().clone() for name, weight in trainer.model.named_parameters()}
        trainer.train()
        moved[ratio] = max((w - before[n]).abs().max().item() for n, w in trainer.model.named_parameters()
                           if "lora_B" in n)  # fmt: skip
    assert moved[16.0] / moved[1.0] == pytest.approx(16, rel=1e-3)


def test_schedule_and_resumed_run_keep_the_ratio(build: Build) -> None:
    words = [*SFT, *EMBEDDED, "training.lr_scheduler_type=linear", "training.max_steps=4",
             "training.save_strategy=steps", "training.save_steps=2"]  # fmt: skip
    whole = build(*words)
    whole.train()
    losses = [line["loss"] for line in whole.state.log_history if "loss" in line]
    checkpoint = Path(whole.args.output_dir) / "checkpoint-2"
    again = build(*words)
    again.train(resume_from_checkpoint=str(checkpoint))
    assert [line["loss"] for line in again.state.log_history if "loss" in line] == losses
    seen: list[dict[str, float]] = []
    other = build(*words, "training.learning_rate=0.002")  # the last value counts
    step = other.training_step

    def looked(*args: Any, **kwargs: Any) -> torch.Tensor:
        seen.append(rates(other.optimizer, other.model))
        return step(*args, **kwargs)

    other.training_step = looked
    other.train(resume_from_checkpoint=str(checkpoint))
    kinds = [{"embedding" if "embedding" in n else "B" if "lora_B" in n else "A": rate for n, rate in of.items()}
             for of in seen]  # fmt: skip
    assert kinds[0] == pytest.approx({"A": 0.001, "B": 0.016, "embedding": 0.00025})
    assert kinds[1] == pytest.approx({"A": 0.0005, "B": 0.008, "embedding": 0.000125})


def test_a_checkpoint_of_another_ratio_is_refused(build: Build) -> None:
    words = [*SFT, "training.save_strategy=steps", "training.save_steps=1", "training.max_steps=1"]
    trainer = build(*words)
    trainer.train()
    checkpoint = Path(trainer.args.output_dir) / "checkpoint-1"
    assert (
        json.loads((checkpoint / "complete.json").read_text())["trained_with"]["method.loraplus_lr_ratio"]
        == 16.0
    )
    resumed = [*words, f"training.resume_from_checkpoint={checkpoint}"]
    said = [str(problem) for more in ((), ("method.loraplus_lr_ratio=4",))
            for problem in refusals.problems(composed(*resumed, *more), {}, [refusals.DISK])
            if problem.key == "method.loraplus_lr_ratio"]  # fmt: skip
    assert len(said) == 1 and "was trained with 16, which a resumed run must keep" in said[0]


def test_a_rate_of_embeddings_that_have_no_adapter_is_refused(build: Build) -> None:
    with pytest.raises(
        Refused, match=r"loraplus_lr_embedding=0.01: has no effect: no embedding has an adapter"
    ):
        build(*SFT, "method.loraplus_lr_embedding=0.01")
