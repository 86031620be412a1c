"""The optimizers: their files are the choices, their groups are Transformers'."""

from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

from llmf_hydra import optimizers
from llmf_hydra.config.choices import OPTIMIZERS, planned
from llmf_hydra.config.groups.optimizer import OptimizerConfig
from llmf_hydra.optimizers.build import build_optimizer, follow_learning_rate, load_algorithm

BUILT = sorted(set(OPTIMIZERS) - set(planned(OPTIMIZERS)))
TRANSFORMERS = {"adamw": "adamw_torch", "adafactor": "adafactor", "sgd": "sgd"}


def test_the_choices_are_the_files() -> None:
    files = {file.stem for file in Path(optimizers.__file__).parent.glob("*.py")} - {"__init__", "build"}
    assert files == set(BUILT)
    assert all(callable(load_algorithm(name).build) for name in BUILT)
    assert all(callable(load_algorithm(name).footprint) for name in BUILT)


@pytest.mark.parametrize("name", sorted(TRANSFORMERS))
def test_an_optimizer_is_the_one_that_transformers_would_build(name: str, tmp_path: Path) -> None:
    shape = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "vocab_size": 11,
             "num_attention_heads": 2, "num_key_value_heads": 2}  # fmt: skip
    model = LlamaForCausalLM(LlamaConfig(**shape, attention_bias=True))
    model.lm_head.requires_grad_(False)
    given = {"weight_decay": 0.1, "adam_beta1": 0.8, "adam_beta2": 0.9, "adam_epsilon": 1e-7}
    arguments = TrainingArguments(
        str(tmp_path), optim=TRANSFORMERS[name], learning_rate=0.3, use_cpu=True, **given
    )
    expected = Trainer(model, arguments).create_optimizer()
    found = build_optimizer(model, OptimizerConfig(name=name, **given), 0.3)
    assert type(found) is type(expected)
    assert len(found.param_groups) == len(expected.param_groups) == 2
    for mine, theirs in zip(found.param_groups, expected.param_groups, strict=True):
        assert [id(weight) for weight in mine["params"]] == [id(weight) for weight in theirs["params"]]
        settings = mine.keys() - {"params"}
        assert {key: mine[key] for key in settings} == {key: theirs[key] for key in settings}
    assert len(found.param_groups[1]["params"]) == 3 + 4, "norms and biases aren't decayed"


def test_a_resumed_run_follows_the_learning_rate_of_its_config() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e25)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (step + 1))
    optimizer.step()
    schedule.step()
    follow_learning_rate(optimizer, [schedule], 0.5)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.25)
    schedule.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.5 / 3)
