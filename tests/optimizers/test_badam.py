"""BAdam: layer mode beside algorithm 1 of its paper (arXiv:2404.02827), and the shares of its ratio mode."""

import logging
from collections import Counter
from typing import Any

import pytest
import torch
from support.small_models import (
    RATE,
    AdamW,
    Weights,
    close,
    decayed,
    llama,
    loss,
    optimizer_of,
    train,
    trained_by,
    weights_of,
)

from llmf_hydra.errors import Refused
from llmf_hydra.models.value_head import PolicyWithValue

STEPS = 9


def block_of(name: str) -> int | None:
    return int(name.split(".")[2]) if ".layers." in name else None


class Layers:
    """Each entry of `order` is trained for `interval` steps, by an AdamW that begins anew."""

    def __init__(self, order: list[int], interval: int):
        self.order, self.interval, self.adam = order, interval, AdamW()

    def __call__(self, t: int, weights: Weights, gradients: Weights) -> Weights:
        if t % self.interval == 0:
            self.adam = AdamW()
        current = self.order[t // self.interval]
        return {
            name: self.adam.step(name, weight, gradients[name]) if block_of(name) == current else weight
            for name, weight in weights.items()
        }


def trained(**settings: Any) -> Weights:
    model = llama(layers=3)
    return train(model, optimizer_of(model, "badam", **settings), STEPS)


@pytest.mark.parametrize(
    ("settings", "order", "interval"),
    [
        ({"badam_switch_interval": 2}, [0, 1, 2, 0, 1], 2),
        ({"badam_switch_interval": 4}, [0, 1, 2], 4),
        ({"badam_switch_interval": 4, "badam_switch_mode": "descending"}, [2, 1, 0], 4),
        ({"badam_switch_interval": 4, "badam_start_block": 2}, [2, 0, 1], 4),
        (
            {"badam_switch_interval": 4, "badam_switch_mode": "descending", "badam_start_block": 1},
            [1, 0, 2],
            4,
        ),
        ({"badam_switch_mode": "fixed", "badam_start_block": 1}, [1], STEPS),
        ({"badam_switch_mode": None}, [0], STEPS),
        ({"badam_switch_interval": -1, "badam_start_block": 2}, [2], STEPS),
        ({"badam_switch_interval": None}, [0], STEPS),
    ],
)
def test_blocks_are_trained_in_their_order(settings: dict[str, Any], order: list[int], interval: int) -> None:
    assert close(trained(**settings), trained_by(Layers(order, interval), STEPS, llama(layers=3)))


def test_at_random_each_block_comes_once_a_cycle() -> None:
    def order(seed: int, **settings: Any) -> list[int]:
        model = llama(layers=4)
        given = {"badam_switch_mode": "random", "badam_switch_interval": 1, **settings}
        optimizer: Any = optimizer_of(model, "badam", **given)
        optimizer._order._seed = seed
        found = []
        for number in range(8):
            found.append(optimizer.current)
            train(model, optimizer, 1, number)
        return found

    seen = [order(seed, badam_start_block=2) for seed in range(6)]
    assert len({tuple(found) for found in seen}) > 1, "always the same order"
    for found in seen:
        assert found[0] == 2 and sorted(found[:4]) == sorted(found[4:]) == [0, 1, 2, 3]
    assert order(7) == order(7)


def test_only_the_current_block_has_gradients_and_a_state() -> None:
    model = llama()
    optimizer = optimizer_of(model, "badam", badam_switch_interval=2)
    seen = []
    for number in range(4):
        loss(model, number).backward()
        seen.append({block_of(name) for name, weight in model.named_parameters() if weight.grad is not None})
        optimizer.step()
        kept = {block_of(name) for name, weight in model.named_parameters() if weight in optimizer.state}
        assert kept == (seen[-1] if number % 2 == 0 else set()), "dropped at the switch"
    assert seen == [{0}, {0}, {1}, {1}]


def test_heads_that_start_random_are_always_trained() -> None:
    scorer = llama(scores=True)
    policy: Any = PolicyWithValue(llama())
    for model, head in ((scorer, "score.weight"), (policy, "value_head.weight")):
        optimizer = optimizer_of(model, "badam", badam_switch_interval=1)
        named = dict(model.named_parameters())
        steps = []
        for _ in range(2):
            sum(weight.sum() for weight in named.values() if weight.requires_grad).backward()  # pyright: ignore
            optimizer.step()
            model.zero_grad()
            steps.append(optimizer.state[named[head]]["step"])
        assert steps == [1, 2], "its state outlives the switch"
        assert not any(w.requires_grad for n, w in named.items() if "embed" in n or "lm_head" in n)


def test_it_tells_what_is_trained(caplog: pytest.LogCaptureFixture) -> None:
    said = {}
    for verbose in (0, 1, 2):
        caplog.clear()
        with caplog.at_level(logging.INFO):
            optimizer_of(llama(), "badam", badam_verbose=verbose)
        said[verbose] = caplog.messages
    assert said[0] == ["BAdam trains the hidden layers; 1,040 weights outside them stay as they are"]
    assert said[1] == [*said[0], "BAdam: block 0 of 2 is trained now"]
    assert said[2][:-1] == said[1] and "model.layers.0.mlp.up_proj.weight" in said[2][-1]


def test_a_block_that_is_not_there_is_refused() -> None:
    with pytest.raises(Refused, match=r"badam_start_block=2: there are 2 blocks"):
        optimizer_of(llama(), "badam", badam_start_block=2)


def changed(before: Weights, after: Weights) -> dict[str, torch.Tensor]:
    return {name: (after[name] != before[name]).flatten().nonzero().flatten() for name in before}


@pytest.mark.parametrize(("ratio", "mode"), [(0.05, "adjacent"), (0.3, "adjacent"), (0.3, "scatter")])
def test_a_share_of_each_weight_is_stepped(ratio: float, mode: str) -> None:
    model = llama()
    optimizer = optimizer_of(model, "badam", badam_mode="ratio", badam_update_ratio=ratio, badam_mask_mode=mode,
                             badam_switch_interval=3)  # fmt: skip
    start = weights_of(model)
    with torch.no_grad():
        model.model.embed_tokens.weight.abs_()  # unused tokens have no gradient, but a decay
    first = train(model, optimizer, 3)
    for name, weight in model.named_parameters():
        assert len(optimizer.state.get(weight, {})) == 0, "dropped with the mask"
        entries = changed(start, first)[name]
        share = -(-int(weight.numel() * ratio * 1000) // 1000)
        if "embed" in name:
            continue
        assert abs(len(entries) - share) <= 1, name
        together = len(entries) > 1 and int(entries[-1] - entries[0]) == len(entries) - 1
        assert len(entries) < 8 or together == (mode == "adjacent"), name
    second = train(model, optimizer, 2, 3)
    moved = [n for n, e in changed(first, second).items() if not torch.equal(e, changed(start, first)[n])]
    assert len(moved) > 10, "the mask has changed"


def test_the_share_is_stepped_by_adamw() -> None:
    """With a ratio of 1 every entry is: plain AdamW on all weights, begun anew at each switch."""

    class Everything(Layers):
        def __call__(self, t: int, weights: Weights, gradients: Weights) -> Weights:
            if t % self.interval == 0:
                self.adam = AdamW()
            return {name: self.adam.step(name, weights[name], gradients[name]) for name in weights}

    for mode in ("adjacent", "scatter"):
        found = trained(
            badam_mode="ratio", badam_update_ratio=1.0, badam_mask_mode=mode, badam_switch_interval=4
        )
        assert close(found, trained_by(Everything([], 4), STEPS, llama(layers=3)))


def test_scattered_entries_differ_and_lie_everywhere() -> None:
    from llmf_hydra.optimizers.badam import mask

    weight = torch.zeros(1000)
    counts: Counter[int] = Counter()
    for seed in range(300):
        entries = mask(weight, 0.13, "scatter", seed)
        assert isinstance(entries, torch.Tensor) and len(set(entries.tolist())) == len(entries) == 130
        counts.update(entries.tolist())
    assert len(counts) == 1000 and max(counts.values()) < 3 * 300 * 0.13


def test_a_decay_touches_the_share_alone() -> None:
    model = llama()
    optimizer = optimizer_of(model, "badam", badam_mode="ratio", badam_update_ratio=0.2)
    before = weights_of(model)
    (loss(model, 0) * 0).backward()
    optimizer.step()
    name = "lm_head.weight"
    entries = changed(before, weights_of(model))[name]
    assert 0 < len(entries) <= 0.2 * before[name].numel() + 1
    ratio = model.lm_head.weight.detach().flatten()[entries] / before[name].flatten()[entries]
    assert torch.allclose(ratio, torch.full_like(ratio, 1 - RATE * decayed(name)))
