"""Stages and methods: their files are the choices, and each has what its protocol asks for."""

import inspect
from pathlib import Path

import pytest
from support.command_line import Cli

from llmf_hydra import methods, stages
from llmf_hydra.config.choices import METHODS, STAGES, planned
from llmf_hydra.methods.protocol import AdapterMethod, Method, load_adapter_method, load_method
from llmf_hydra.stages.protocol import Stage, load_stage


def files(package: str) -> set[str]:
    return {file.stem for file in Path(package).parent.glob("*.py")} - {"__init__", "protocol", "modules"}


def fulfils(module: object, protocol: type) -> None:
    """Each function of the protocol, with its parameters."""
    asked = {
        name: f for name, f in inspect.getmembers(protocol, inspect.isfunction) if not name.startswith("_")
    }
    assert asked
    for name, function in asked.items():
        wanted = list(inspect.signature(function).parameters.values())[1:]
        found = list(inspect.signature(getattr(module, name)).parameters.values())
        assert [(p.name, p.kind) for p in found] == [(p.name, p.kind) for p in wanted], f"{module}.{name}"


def test_the_choices_are_the_files() -> None:
    assert files(stages.__file__) == set(STAGES) - set(planned(STAGES))
    assert files(methods.__file__) == set(METHODS) - set(planned(METHODS))


@pytest.mark.parametrize("name", sorted(set(STAGES) - set(planned(STAGES))))
def test_a_stage_has_what_the_job_needs(name: str) -> None:
    fulfils(load_stage(name), Stage)


@pytest.mark.parametrize("name", sorted(set(METHODS) - set(planned(METHODS))))
def test_a_method_has_what_the_job_needs(name: str) -> None:
    fulfils(load_method(name), Method)
    if METHODS[name].adapters:
        fulfils(load_adapter_method(name), AdapterMethod)


def test_an_adapter_that_a_method_ignores_is_told_and_the_run_trains(
    cli: Cli, first: Path, tmp_path: Path
) -> None:
    done = cli("stage=sft", "method=full", "model=tiny", f"model.adapter_name_or_path={first}",
               "launch.allow_extra_args=true", "training.max_steps=1", "training.eval_strategy=no", "data.val_size=0",
               "training.save_strategy=no", "training.plot_loss=false", "hydra.run.dir=run")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "model.adapter_name_or_path" in done.stdout + done.stderr
    assert (tmp_path / "run" / "final" / "model.safetensors").exists()
