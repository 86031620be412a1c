"""Group `quantization`: what the frozen weights are, and that adapters learn on them."""

from importlib.util import find_spec
from typing import Any

import pytest
import torch
from support.parameter_runs import Case, Outcome, Train

pytest.importorskip("bitsandbytes", reason="needs bitsandbytes: pip install 'llmf_hydra[bnb]'")
needs_hqq = pytest.mark.skipif(find_spec("hqq") is None, reason="needs hqq: pip install 'llmf_hydra[hqq]'")

BIT, METHOD = "quantization.quantization_bit", "quantization.quantization_method"
FOUR = {BIT: 4}


def base(of: Outcome) -> Any:
    """The layer under an adapter."""
    return of.trainer.model.get_base_model().model.layers[0].mlp.up_proj.base_layer


def kind(of: Outcome) -> tuple[str, torch.dtype]:
    layer = base(of)
    return type(layer).__name__, (layer.W_q if hasattr(layer, "W_q") else layer.weight).dtype


def state(of: Outcome) -> Any:
    return base(of).weight.quant_state


def bits(of: Outcome) -> int:
    """Of a weight, without its constants."""
    packed = base(of).W_q
    return packed.numel() * packed.element_size() * 8 // (64 * 128)


CASES = [
    Case(BIT, kind, {None: ("Linear", torch.float32), 4: ("Linear4bit", torch.uint8), 8: ("Linear8bitLt", torch.int8)}),
    Case(
        "quantization.quantization_type", lambda of: state(of).quant_type, {"nf4": "nf4", "fp4": "fp4"}, FOUR
    ),
    Case("quantization.double_quantization", lambda of: state(of).nested, {True: True, False: False}, FOUR),
    pytest.param(
        Case(
            METHOD,
            kind,
            {
                "bitsandbytes": ("Linear4bit", torch.uint8),
                "bnb": ("Linear4bit", torch.uint8),
                "hqq": ("HQQLinear", torch.uint8),
            },
            FOUR,
        ),
        marks=needs_hqq,
    ),
    pytest.param(Case(BIT, bits, {1: 1, 2: 2, 3: 3, 4: 4, 8: 8}, {METHOD: "hqq"}), marks=needs_hqq),
]  # fmt: skip
ALL = [{}, FOUR, {**FOUR, "quantization.quantization_type": "fp4"},
       {**FOUR, "quantization.double_quantization": False}, {BIT: 8}]  # fmt: skip
HQQ = [{BIT: bit, METHOD: "hqq"} for bit in (2, 3, 4, 8)]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.key)
def test_outcomes(case: Case, train: Train) -> None:
    case.check(train)


def test_each_setting_has_a_loss_of_its_own_and_learns(train: Train) -> None:
    runs = [train(changes) for changes in (*ALL, *(HQQ if find_spec("hqq") else ()))]
    whole, *quantized = [of.losses for of in runs]
    assert len({losses[0] for losses in (whole, *quantized)}) == len(runs)
    for losses, of in zip(quantized, runs[1:], strict=True):
        assert losses[0] == pytest.approx(whole[0], rel=0.02) and losses[-1] < losses[0]
        changed = of.changed()
        assert changed and all("lora_" in name for name in changed), "the base stays as it is"
        assert len(changed) == 28, "each linear layer has its adapter"


def test_eight_bits_of_either_library_are_nearer_to_full_precision_than_four(train: Train) -> None:
    whole = train({}).losses[0]
    for method in ("bitsandbytes", *(["hqq"] if find_spec("hqq") else [])):
        four, eight = (abs(train({BIT: bit, METHOD: method}).losses[0] - whole) for bit in (4, 8))
        assert eight < four


def test_dora_and_modules_in_full_go_with_quantized_weights(train: Train) -> None:
    done = train({**FOUR, "method.use_dora": True, "method.additional_target": "embed_tokens, norm"})
    names = {name for name in done.changed() if "lora_" not in name}
    assert {name.split(".")[-4] for name in names} == {"embed_tokens", "norm"}
