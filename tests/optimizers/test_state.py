"""What optimizers keep: as much as the estimate says, saved and loaded without pickled classes, to the same weights."""

from pathlib import Path
from typing import Any

import pytest
import torch
from support.small_models import llama, loss, optimizer_of, train

from llmf_hydra.config.groups.optimizer import OptimizerConfig
from llmf_hydra.optimizers.build import without_weights

SMALL = {"galore_rank": 3, "galore_update_interval": 4, "apollo_rank": 3, "apollo_update_interval": 4,
         "badam_switch_interval": 3}  # fmt: skip
ALGORITHMS: list[tuple[str, dict[str, Any]]] = [
    ("adamw", {}),
    ("adafactor", {}),
    ("sgd", {}),
    ("adam_mini", {}),
    ("muon", {}),
    *(("galore", {"galore_proj_type": kind}) for kind in ("std", "reverse_std", "left", "right", "full")),
    ("galore", {"galore_layerwise": True}),
    ("galore", {"galore_target": "k_proj"}),
    ("apollo", {}),
    ("apollo", {"apollo_proj": "svd"}),
    ("apollo", {"apollo_layerwise": True, "apollo_scale_type": "tensor"}),
    *(("badam", {"badam_switch_mode": mode}) for mode in ("ascending", "random", "fixed")),
    ("badam", {"badam_mode": "ratio"}),
    ("badam", {"badam_mode": "ratio", "badam_mask_mode": "scatter"}),
]
EACH = [
    pytest.param(name, given, id="-".join([name, *map(str, given.values())])) for name, given in ALGORITHMS
]


def settings(name: str, given: dict[str, Any]) -> dict[str, Any]:
    return {**{key: value for key, value in SMALL.items() if key.startswith(name)}, **given}


@pytest.mark.parametrize(("name", "given"), EACH)
def test_the_estimate_is_what_is_kept(name: str, given: dict[str, Any]) -> None:
    model = llama().float()
    optimizer = optimizer_of(model, name, **settings(name, given))
    gradients = state = 0
    freed: list[int] = []
    for weight in (weight for weight in model.parameters() if weight.requires_grad):
        weight.register_post_accumulate_grad_hook(lambda weight: freed.append(weight.nbytes))
    for number in range(7):
        loss(model, number).backward()
        gradients = max(gradients, sum(w.grad.nbytes for w in model.parameters() if w.grad is not None))
        optimizer.step()
        model.zero_grad()
        state = max(state, sum(_bytes(of) for of in optimizer.state.values()))
    _, estimated = without_weights(
        llama().to("meta", torch.float32), OptimizerConfig(name=name, **settings(name, given))
    )
    assert estimated.state == state
    assert estimated.gradients == (gradients or max(freed))
    assert estimated.trained == sum(w.numel() for group in optimizer.param_groups for w in group["params"])


def _bytes(state: dict[str, Any]) -> int:
    """Of the tensors, the counts of steps and Adafactor's norm apart: a few numbers of a weight."""
    return sum(
        value.nbytes
        for key, value in state.items()
        if isinstance(value, torch.Tensor) and key not in ("step", "RMS")
    )


def test_what_is_kept_of_a_matrix() -> None:
    """(m, n), m <= n: AdamW 2mn, GaLore r (m + 2n), APOLLO 2rn + 1, Adam-mini mn + m, Muon mn."""
    m, n, rank = 16, 24, 3  # down_proj; gate and up are its transpose

    def state(name: str, **given: Any) -> int:
        _, taken = without_weights(llama().to("meta", torch.float32), OptimizerConfig(name=name, **given))
        return taken.state // 4

    adamw = state("adamw")
    for name, of_matrix in (("galore", rank * (m + 2 * n)), ("apollo", 2 * rank * n + 1)):
        saved = adamw - state(name, **{f"{name}_rank": rank, f"{name}_target": "down_proj"})
        assert saved == 2 * (2 * m * n - of_matrix), name
    assert 0.5 * adamw < state("adam_mini") < 0.56 * adamw
    layer = sum(weight.numel() for weight in llama().model.layers[0].parameters())
    assert state("badam") == 2 * layer
    matrices = sum(
        weight.numel() for layer in llama().model.layers for weight in layer.parameters() if weight.dim() == 2
    )
    assert state("muon") == adamw - matrices


@pytest.mark.parametrize(("name", "given"), EACH)
def test_a_resumed_run_reaches_the_same_weights(name: str, given: dict[str, Any], tmp_path: Path) -> None:
    whole = llama().float()
    expected = train(whole, optimizer_of(whole, name, **settings(name, given)), 8)
    for stop in (3, 5):  # after a switch and within a turn
        model = llama().float()
        optimizer = optimizer_of(model, name, **settings(name, given))
        train(model, optimizer, stop)
        torch.save(
            {"weights": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "saved.pt"
        )
        saved = torch.load(tmp_path / "saved.pt", weights_only=True)
        again = llama().float()
        again.load_state_dict(saved["weights"])
        resumed = optimizer_of(again, name, **settings(name, given))
        resumed.load_state_dict(saved["optimizer"])
        found = train(again, resumed, 8 - stop, stop)
        assert all(torch.equal(found[weight], expected[weight]) for weight in expected), stop
