"""The optimizers in real runs: the trainer's norm, schedule, checkpoints and resumption, and the command line."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.command_line import Cli
from support.killed_runs import has_logged, kill_when
from support.stage_runs import Build, composed

from llmf_hydra.config.choices import OPTIMIZERS
from llmf_hydra.errors import Refused

LAYERWISE = "training.max_grad_norm=0"
RUN = ["stage=sft", "method=full", "data.max_samples=40", "data.val_size=0", "training.eval_strategy=no",
       "training.max_steps=6", "training.logging_steps=1", "training.save_strategy=steps", "training.save_steps=3",
       "training.lr_scheduler_type=linear", "training.warmup_ratio=0", "training.learning_rate=0.01",
       "training.plot_loss=false"]  # fmt: skip
GALORE = ["optimizer=galore", "optimizer.galore_rank=4", "optimizer.galore_update_interval=2"]
APOLLO = ["optimizer=apollo", "optimizer.apollo_rank=4", "optimizer.apollo_update_interval=2"]
BADAM = ["optimizer=badam", "optimizer.badam_switch_interval=2"]


def result(trainer: Any) -> tuple[dict[str, torch.Tensor], list[dict[str, float]]]:
    """The weights, and the loss, norm and learning rate of each step."""
    logged = [
        {key: line[key] for key in ("loss", "grad_norm", "learning_rate")}
        for line in trainer.state.log_history
        if "loss" in line
    ]
    return {name: weight.detach().clone() for name, weight in trainer.model.named_parameters()}, logged


def same(found: Any, expected: Any) -> bool:
    return all(torch.equal(found[0][name], weight) for name, weight in expected[0].items())


@pytest.mark.parametrize("words", [GALORE, APOLLO], ids=["galore", "apollo"])
def test_layerwise_is_the_ordinary_run_and_is_resumed(words: list[str], build: Build) -> None:
    name = words[0].partition("=")[2]
    ordinary = build(*RUN, *words, LAYERWISE, "model.use_reentrant_gc=false")
    ordinary.train()
    expected = result(ordinary)
    layerwise = [*RUN, *words, LAYERWISE, f"optimizer.{name}_layerwise=true"]
    whole = build(*layerwise)
    whole.train()
    found = result(whole)
    assert same(found, expected)
    assert [line["learning_rate"] for line in found[1]] == [line["learning_rate"] for line in expected[1]]
    for mine, theirs in zip(found[1], expected[1], strict=True):
        assert mine["loss"] == theirs["loss"]
        assert mine["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-5)
    again = build(*layerwise)
    again.train(resume_from_checkpoint=f"{whole.args.output_dir}/checkpoint-3")
    assert same(result(again), expected)


def test_badam_trains_a_block_at_a_time_and_is_resumed(build: Build) -> None:
    whole = build(*RUN, *BADAM, "optimizer.badam_start_block=1", "training.save_steps=2")
    whole.train()
    expected = result(whole)
    states = [
        torch.load(f"{whole.args.output_dir}/checkpoint-{step}/optimizer.pt", weights_only=True)
        for step in (2, 4)
    ]
    assert [len(state["state"]) for state in states] == [0, 0], "dropped at the switch"
    files = [load_file(f"{whole.args.output_dir}/checkpoint-{step}/model.safetensors") for step in (2, 4, 6)]
    moved = [
        {name.split(".")[2] for name in before if not torch.equal(before[name], after[name])}
        for before, after in itertools.pairwise(files)
    ]
    assert moved == [{"0"}, {"1"}]
    again = build(*RUN, *BADAM, "optimizer.badam_start_block=1", "training.save_steps=2")
    again.train(resume_from_checkpoint=f"{whole.args.output_dir}/checkpoint-2")
    assert same(result(again), expected)


def test_a_resumed_run_follows_the_settings_of_its_config(build: Build) -> None:
    whole = build(*RUN, *GALORE)
    whole.train()
    changed = build(*RUN, *GALORE, "optimizer.galore_scale=2.0", "optimizer.weight_decay=0.1")
    changed.train(resume_from_checkpoint=f"{whole.args.output_dir}/checkpoint-3")
    assert [group["weight_decay"] for group in changed.optimizer.param_groups if "rank" in group] == [0.1]
    assert not same(result(changed), result(whole))


def test_what_the_model_does_not_have_is_refused_before_its_weights_are_loaded(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llmf_hydra.jobs import assemble

    monkeypatch.setenv("LLMF_CACHE", str(cache))
    monkeypatch.chdir(tmp_path)
    cases = {
        (
            "optimizer=galore",
            "optimizer.galore_target='q_porj,mlp'",
        ): "galore_target=q_porj: names no linear layer that "
        "is trained; the model has down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj; "
        "did you mean 'q_proj'",
        (
            "optimizer=apollo",
            "optimizer.apollo_target=lm_head",
        ): "apollo_target=lm_head: names no linear layer",
        ("optimizer=badam", "optimizer.badam_start_block=2"): "badam_start_block=2: there are 2 blocks",
        (
            "optimizer=galore",
            "optimizer.galore_rank=65",
        ): "galore_rank=65: is above the shorter dimension of every "
        "targeted layer, and no gradient has a higher rank than that; take 64 or less",
        ("optimizer=apollo", "optimizer.apollo_rank=99"): "apollo_rank=99: is above the shorter dimension",
        (
            "optimizer=muon",
            "method=lora",
            "method.lora_target=embed_tokens",
        ): "optimizer=muon: no matrix of the "
        "hidden layers is trained, and other weights use AdamW; choose optimizer=adamw",
    }
    for words, message in cases.items():
        with pytest.raises(Refused) as refused:
            assemble.load_inputs(composed("stage=sft", "method=full", "data.max_samples=20", *words))
        assert message in str(refused.value)


def test_the_estimate_tells_them_apart(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from llmf_hydra.jobs import assemble

    monkeypatch.setenv("LLMF_CACHE", str(cache))
    monkeypatch.chdir(tmp_path)

    def estimated(*words: str) -> Any:
        given = ["stage=sft", "method=full", "data.max_samples=20", "data.val_size=4"]
        return assemble.load_inputs(composed(*given, *words)).estimate

    adamw = estimated("optimizer=adamw")
    assert adamw.optimizer == 2 * 4 * adamw.parameters and adamw.gradients == 4 * adamw.parameters
    assert estimated("optimizer=adam_mini").optimizer == pytest.approx(adamw.optimizer / 2, rel=0.05)
    badam = estimated("optimizer=badam")
    assert badam.optimizer == 2 * badam.gradients and 2 * badam.gradients == 4 * badam.trained
    galore = estimated(*GALORE)
    layerwise = estimated(*GALORE, LAYERWISE, "optimizer.galore_layerwise=true")
    assert galore.gradients == adamw.gradients and layerwise.gradients == 4 * 1024 * 64, "the embedding"
    assert layerwise.optimizer == galore.optimizer < adamw.optimizer


RATIO = ["optimizer=badam", "optimizer.badam_mode=ratio", "optimizer.badam_switch_interval=2"]
KILLED = {
    "galore": GALORE,
    "galore layerwise": [*GALORE, LAYERWISE, "optimizer.galore_layerwise=true"],
    "apollo": APOLLO,
    "apollo layerwise": [*APOLLO, LAYERWISE, "optimizer.apollo_layerwise=true"],
    "badam": BADAM,
    "badam ratio": [*RATIO, "optimizer.badam_mask_mode=scatter"],
    "adam_mini": ["optimizer=adam_mini"],
    "muon": ["optimizer=muon"],
    "adafactor": ["optimizer=adafactor"],
}


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(words, marks=[] if words is BADAM else pytest.mark.slow, id=name)
        for name, words in KILLED.items()
    ],
)
def test_a_killed_run_goes_on_to_the_undisturbed_result(
    words: list[str], cli: Cli, tmp_path: Path, environment: dict[str, str]
) -> None:
    command = [*RUN, *words, "model=tiny", "training.max_steps=9"]
    assert cli(*command, "hydra.run.dir=whole").returncode == 0
    killed = tmp_path / "killed"
    kill_when(has_logged(5), command, killed, environment)
    assert not (killed / "final").exists()
    done = cli("resume", "killed")
    assert done.returncode == 0 and "going on from checkpoint-3" in done.stdout, done.stderr
    for folder in ("final", "checkpoint-9"):
        files = [(tmp_path / run / folder / "model.safetensors").read_bytes() for run in ("whole", "killed")]
        assert files[0] == files[1]


@pytest.mark.slow
def test_a_sweep_over_the_optimizers(cli: Cli, tmp_path: Path) -> None:
    names = ["adamw", "adam_mini", "galore", "apollo", "badam", "muon"]
    words = [word for word in RUN if not word.startswith(("stage", "method"))]
    done = cli("-m", "stage=sft", "method=full", f"optimizer={','.join(names)}", "model=tiny", *words,
               "hydra.sweep.dir=sweep")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert all(name in OPTIMIZERS for name in names)
    finals = {file.read_bytes() for file in (tmp_path / "sweep").rglob("final/model.safetensors")}
    assert len(finals) == len(names), "each has weights of its own"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["galore", "apollo", "adam_mini", "muon", "badam ratio"])
def test_two_processes_train_as_one(name: str, cli: Cli, tmp_path: Path) -> None:
    command = [*RUN, *KILLED[name], "model=tiny", "training.max_grad_norm=0", "model.compute_dtype=float32"]
    for run, more in (
        ("one", ["training.per_device_train_batch_size=2"]),
        ("two", ["training.per_device_train_batch_size=1", "launch.nproc_per_node=2"]),
    ):
        done = cli(*command, *more, f"hydra.run.dir={run}")
        assert done.returncode == 0, done.stderr
    one, two = (load_file(tmp_path / run / "checkpoint-3" / "model.safetensors") for run in ("one", "two"))
    # Each weight has gone some 0.02; rounding is made much of by Adam's division and by Muon's bfloat16.
    far = {name: (two[name] - weight).abs().mean().item() for name, weight in one.items()}
    assert max(far.values()) < 1e-3, far
