"""Group `training`: what is logged, saved and evaluated, and when."""

from pathlib import Path

import pytest
from support.parameter_runs import Case, Outcome, Train, Work, config, parameter

from llmf_hydra import refusals

FIVE = {"training.max_steps": 5, "training.save_strategy": "steps", "training.save_steps": 2}
TWO_EPOCHS = {
    "training.max_steps": -1,
    "training.num_train_epochs": 2.0,
    "training.save_steps": 3,
    "training.per_device_train_batch_size": 2,
}
HELD = {"data.val_size": 4.0, "training.max_steps": 4, "training.eval_strategy": "steps"}


def names(of: Outcome) -> frozenset[str]:
    return frozenset(name for line in of.log for name in line)


def evaluations(of: Outcome) -> list[float]:
    return of.logged("eval_loss")


CASES = [
    Case(
        "training.logging_steps",
        lambda of: of.logged("loss"),
        {1: [1, 2, 3, 4], 2: [2, 4]},
        {"training.max_steps": 4},
    ),
    Case(
        "training.logging_first_step",
        lambda of: of.logged("loss"),
        {False: [2, 4], True: [1, 2, 4]},
        {"training.max_steps": 4, "training.logging_steps": 2},
    ),
    Case(
        "training.save_strategy",
        lambda of: of.checkpoints,
        {"no": [], "steps": [3, 6, 8], "epoch": [4, 8]},
        TWO_EPOCHS,
    ),
    Case("training.save_steps", lambda of: of.checkpoints, {2: [2, 4, 5], 3: [3, 5]}, FIVE),
    Case("training.save_total_limit", lambda of: of.checkpoints, {None: [2, 4, 5], 2: [4, 5], 1: [5]}, FIVE),
    Case("training.eval_strategy", evaluations, {"no": [], "steps": [1, 2, 3, 4], "epoch": [4]}, HELD),
    Case("training.eval_steps", evaluations, {None: [1, 2, 3, 4], 2: [2, 4], 3: [3, 4]}, HELD),
    Case(
        "training.per_device_eval_batch_size",
        lambda of: of.evaluated,
        {8: 1, 2: 2, 1: 4},
        {**HELD, "training.eval_steps": 4},
    ),
    Case(
        "training.compute_accuracy",
        lambda of: "eval_accuracy" in names(of),
        {False: False, True: True},
        {**HELD, "training.eval_steps": 4},
    ),
    Case(
        "training.include_effective_tokens_per_second",
        lambda of: "effective_tokens_per_second" in names(of),
        {False: False, True: True},
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.key)
def test_outcomes(case: Case, train: Train) -> None:
    case.check(train)


def steps_logged(said: str) -> list[int]:
    return [
        int(line.split()[1].split("/")[0])
        for line in said.splitlines()
        if line.startswith("step ") and "  loss " in line
    ]


@parameter("training.resume_from_checkpoint", "training.plot_loss", "model.print_param_status")
def test_a_run_goes_on_from_a_checkpoint(worked: Work, capsys: pytest.CaptureFixture[str]) -> None:
    some = {"training.max_steps": 4, "training.save_strategy": "steps", "training.save_steps": 2}
    first = worked("first", some)
    plain = capsys.readouterr().out
    assert steps_logged(plain) == [1, 2, 3, 4]
    assert not list(first.glob("*.png")) and "lora_A" not in plain

    shown = {"training.plot_loss": True, "model.print_param_status": True}
    again = worked("again", {**some, **shown, "training.resume_from_checkpoint": str(first / "checkpoint-2")})
    said = capsys.readouterr().out
    assert steps_logged(said) == [3, 4]
    names = [Path("final", "adapter_model.safetensors"), Path("checkpoint-4", "optimizer.pt")]
    assert (first / names[0]).read_bytes() == (again / names[0]).read_bytes()
    assert (again / "training_loss.png").stat().st_size > 1000
    path = "layers.0.self_attn.q_proj"
    assert f"base_model.model.model.{path}.base_layer.weight  float32  (64, 64)  cpu  frozen" in said
    assert f"base_model.model.model.{path}.lora_A.default.weight  float32  (8, 64)  cpu  trained" in said
    assert len([line for line in said.splitlines() if line.endswith("  trained")]) == 2 * 2 * 7


@parameter("training.resume_from_checkpoint")
def test_a_checkpoint_that_is_none_is_refused(rows: Path, tmp_path: Path) -> None:
    assert refusals.problems(config(rows, {}), {}) == []
    for folder, what in (
        ("absent", "there is no such folder"),
        (".", "is damaged: it holds no trainer_state.json"),
    ):
        cfg = config(rows, {"training.resume_from_checkpoint": str(tmp_path / folder)})
        (problem,) = refusals.problems(cfg, {})
        assert problem.what == what
