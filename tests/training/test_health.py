"""Nothing that isn't finite is stepped on, saved or kept, and a training that has died is told."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.command_line import Cli
from support.stage_runs import SGD, Build

from llmf_hydra.errors import TrainingFailed

SHORT = ["stage=sft", "model=tiny", "training.lr_scheduler_type=constant", "training.warmup_ratio=0", "data.val_size=0",
         "training.eval_strategy=no", "training.plot_loss=false", "data.max_samples=40", "method=full",
         "model.compute_dtype=float32", "training.logging_steps=1"]  # fmt: skip


def tensors(out: Path) -> list[torch.Tensor]:
    return [weight for file in out.rglob("*.safetensors") for weight in load_file(file).values()]


def test_a_learning_rate_that_overflows_fails_and_keeps_the_last_good_checkpoint(
    cli: Cli, tmp_path: Path
) -> None:
    """The first step has a learning rate of 0, the second the full one."""
    done = cli(*SHORT, "training.learning_rate=1e25", "training.lr_scheduler_type=constant_with_warmup",
               "training.warmup_steps=1", "training.max_steps=3", "training.save_steps=1",
               "training.save_total_limit=1", "hydra.run.dir=run")  # fmt: skip
    said = done.stderr
    assert done.returncode == 1 and "Traceback" not in said
    assert re.search(r"step \d: the (loss|gradient norm|weights)", said)
    assert "training.learning_rate (it is 1e+25)" in said
    out = tmp_path / "run"
    assert [folder.name for folder in out.glob("checkpoint-*")] == ["checkpoint-1"]
    assert not (out / "final").exists() and all(weight.isfinite().all() for weight in tensors(out))
    assert json.loads((out / "manifest.json").read_text())["status"] == "failed"

    config = out / "config.yaml"
    config.write_text(re.sub(r"learning_rate: .*", "learning_rate: 0.001", config.read_text()))
    assert cli("resume", "run").returncode == 0
    weights = tensors(out / "final")
    assert weights and max(float(weight.abs().max()) for weight in weights) < 100


def test_two_steps_at_such_a_learning_rate_fail(cli: Cli, tmp_path: Path) -> None:
    done = cli(*SHORT, "training.learning_rate=1e25", "training.max_steps=2", "hydra.run.dir=run")
    assert done.returncode == 1 and "lower training.learning_rate" in done.stderr
    assert "rows demo_instruct " in done.stderr
    assert not (tmp_path / "run" / "final").exists()
    assert all(weight.isfinite().all() for weight in tensors(tmp_path / "run"))


def test_a_dead_network_is_told_as_diverged(cli: Cli, tmp_path: Path) -> None:
    """At 1e6 the loss stays at the logarithm of the vocabulary's size, without any gradient."""
    done = cli(*SHORT, "training.learning_rate=1e6", "training.max_steps=20", "hydra.run.dir=run")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "diverged" in done.stderr and "training.learning_rate (it is 1e+06)" in done.stderr
    assert not (tmp_path / "run" / "final").exists()


def test_a_gradient_that_is_no_number_is_not_stepped_on(build: Build) -> None:
    trainer = build("stage=sft", *SGD, "method=full")
    first = next(trainer.model.parameters())
    before: list[torch.Tensor] = []

    def spoil(*_: object, **__: object) -> None:
        before.append(first.detach().clone())
        first.register_hook(lambda gradient: gradient * torch.inf)

    trainer.callback_handler.callbacks[0].on_step_end = spoil
    with pytest.raises(
        TrainingFailed, match=r"step 2: the gradient norm is (nan|inf); the batch held the rows demo_"
    ):
        trainer.train()
    assert torch.equal(first, before[0])


def test_pairs_that_are_learned_have_no_gradient_and_go_on(build: Build) -> None:
    trainer = build("stage=dpo", *SGD, "rlhf.pref_loss=hinge", "training.max_steps=5")

    def learned(*_: Any) -> torch.Tensor:
        return sum(w.sum() for w in trainer.model.parameters() if w.requires_grad).reshape(1) * 0  # pyright: ignore

    trainer.unreduced_loss = learned
    trainer.train()
    assert trainer.state.global_step == 5


def test_the_device_is_waited_for_once_per_optimizer_step(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading a tensor's number makes a GPU wait: no micro-batch may do it."""
    trainer = build("stage=sft", *SGD, "training.gradient_accumulation_steps=4", "training.max_steps=2",
                    "training.logging_steps=100", "training.logging_first_step=false")  # fmt: skip
    reads: list[str] = []
    for name in ("item", "tolist", "cpu", "__float__", "__int__"):
        original = getattr(torch.Tensor, name)

        def counted(
            self: torch.Tensor, *args: Any, name: str = name, original: Any = original, **kwargs: Any
        ) -> Any:
            if trainer.is_in_train and self.requires_grad is False and self.numel() <= 64:
                reads.append(name)
            return original(self, *args, **kwargs)

        monkeypatch.setattr(torch.Tensor, name, counted)
    inside: list[int] = []
    step = trainer.training_step

    def watched(*args: Any, **kwargs: Any) -> torch.Tensor:
        before = len(reads)
        loss = step(*args, **kwargs)
        inside.append(len(reads) - before)
        return loss

    trainer.training_step = watched
    trainer.train()
    assert len(inside) == 8 and sum(inside) == 0
