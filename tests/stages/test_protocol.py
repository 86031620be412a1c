"""Stages and methods: their files are the choices, and each has what its protocol asks for."""

import inspect
from pathlib import Path

import pytest
from support.command_line import Cli

from llmf_hydra import methods, stages
from llmf_hydra.config.choices import METHODS, STAGES, planned
from llmf_hydra.methods.protocol import AdapterMethod, Method, load_adapter_method, load_method
from llmf_hydra.stages.protocol import Stage, load_stage


def files(package: str, function: str) -> set[str]:
    """The modules that define the function that each choice has."""
    sources = {file.stem: file.read_text(encoding="utf8") for file in Path(package).parent.glob("*.py")}
    return {name for name, source in sources.items() if f"\ndef {function}(" in source}


def differences(module: object, protocol: type) -> list[str]:
    """The functions of the protocol that a module hasn't, or has with other parameters."""
    asked = {
        name: f for name, f in inspect.getmembers(protocol, inspect.isfunction) if not name.startswith("_")
    }
    wrong = [] if asked else ["the protocol asks for nothing"]
    for name, function in asked.items():
        wanted = list(inspect.signature(function).parameters.values())[1:]
        own = getattr(module, name, None)
        found = list(inspect.signature(own).parameters.values()) if own is not None else []
        if [(p.name, p.kind) for p in found] != [(p.name, p.kind) for p in wanted]:
            wrong.append(name)
    return wrong


def test_a_module_that_lacks_something_is_told_apart() -> None:
    assert differences(inspect, Stage) == ["build_trainer"]
    assert differences(load_method("full"), AdapterMethod) == ["like", "load"]


def test_the_choices_are_the_files() -> None:
    assert files(stages.__file__, "build_trainer") == set(STAGES) - set(planned(STAGES))
    assert files(methods.__file__, "apply") == set(METHODS) - set(planned(METHODS))


@pytest.mark.parametrize("name", sorted(set(STAGES) - set(planned(STAGES))))
def test_a_stage_has_what_the_job_needs(name: str) -> None:
    assert differences(load_stage(name), Stage) == []


@pytest.mark.parametrize("name", sorted(set(METHODS) - set(planned(METHODS))))
def test_a_method_has_what_the_job_needs(name: str) -> None:
    assert differences(load_method(name), Method) == []
    if METHODS[name].adapters:
        assert differences(load_adapter_method(name), AdapterMethod) == []


def test_an_adapter_that_a_method_ignores_is_told_and_the_run_trains(
    cli: Cli, first: Path, tmp_path: Path
) -> None:
    done = cli("stage=sft", "method=full", "model=tiny", f"model.adapter_name_or_path={first}",
               "launch.allow_extra_args=true", "training.max_steps=1", "training.eval_strategy=no", "data.val_size=0",
               "training.save_strategy=no", "training.plot_loss=false", "hydra.run.dir=run")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "model.adapter_name_or_path" in done.stdout + done.stderr
    assert (tmp_path / "run" / "final" / "model.safetensors").exists()
