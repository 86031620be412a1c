"""Group `method`, LoRA: which weights are trained, and how strongly an update acts."""

from pathlib import Path

import pytest
import torch
from support.parameter_runs import Case, Outcome, Train, last_parts, parameter

# Rows and columns of the linear layers of a block of the tiny model, and the weights of all there is.
SHAPES = [(64, 64), (64, 32), (64, 32), (64, 64), (64, 128), (64, 128), (128, 64)]
LINEAR = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
BLOCK = sum(rows * columns for rows, columns in SHAPES) + 2 * 64
WHOLE = 2 * BLOCK + 64 + 1024 * 64


def adapters(rank: int) -> int:
    return 2 * sum(rank * (rows + columns) for rows, columns in SHAPES)


def size(of: Outcome) -> int:
    return sum(weight.numel() for weight in of.changed().values())


def modules(of: Outcome) -> set[str]:
    return last_parts(of.changed())


def vectors(of: Outcome) -> int:
    return sum("lora_magnitude_vector" in name for name in of.changed())


def scaling(of: Outcome) -> float:
    """How much B(A(x)) counts in the output of an adapted layer."""
    layer = of.trainer.model.get_base_model().model.layers[1].mlp.up_proj
    some = torch.ones(1, 64)
    with torch.no_grad():
        whole = layer.eval()(some) - layer.base_layer(some)
        return (whole / layer.lora_B["default"](layer.lora_A["default"](some))).mean().item()


CASES = [
    Case("method.name", size, {"lora": adapters(8), "freeze": 2 * BLOCK, "full": WHOLE}),
    Case("method.lora_rank", size, {8: adapters(8), 3: adapters(3)}),
    Case("method.lora_alpha", scaling, {None: pytest.approx(16 / 8), 4: pytest.approx(4 / 8)}),
    Case("method.use_rslora", scaling, {False: pytest.approx(16 / 8), True: pytest.approx(16 / 8**0.5)}),
    Case("method.lora_dropout", lambda of: of.dropped, {0.0: 0.0, 0.5: pytest.approx(0.5, abs=0.05)}),
    Case("method.lora_target", modules, {"all": LINEAR, "q_proj, up_proj": {"q_proj", "up_proj"}}),
    Case("method.additional_target", modules, {None: LINEAR, "norm": LINEAR | {"norm"}}),
    Case("method.use_dora", vectors, {False: 0, True: 2 * len(SHAPES)}),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.key)
def test_outcomes(case: Case, train: Train) -> None:
    case.check(train)


def test_dropout_changes_what_is_learned(train: Train) -> None:
    plain, dropped = train({}), train({"method.lora_dropout": 0.5})
    assert plain.losses[0] == dropped.losses[0], "B starts at 0, so that A's input has no say yet"
    assert plain.losses[1] != dropped.losses[1]


@parameter("method.additional_target")
def test_a_module_beside_the_adapters_is_saved_with_them(train: Train, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    done = train({"method.additional_target": "norm"})
    done.trainer.save_model(str(tmp_path))
    base = AutoModelForCausalLM.from_pretrained(done.trainer.model.get_base_model().config._name_or_path)
    before = base.model.norm.weight.detach().clone()
    loaded = PeftModel.from_pretrained(base, tmp_path).merge_and_unload()
    (trained,) = (weight for name, weight in done.changed().items() if "modules_to_save" in name)
    assert torch.equal(loaded.model.norm.weight, trained) and not torch.equal(before, trained)
