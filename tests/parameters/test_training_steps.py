"""Group `training`: what a step is made of, and how the learning rate goes."""

import pytest
import torch
from support.parameter_runs import ROWS, Case, Outcome, Train, kinds, parameter

SGD = {"optimizer.name": "sgd"}
FULL = {"method.name": "full"}
SIX = {"training.max_steps": 6, "training.warmup_steps": 2, "training.learning_rate": 1e-6}
FOUR = {"training.max_steps": 4, "training.lr_scheduler_type": "constant_with_warmup"}


def rates(of: Outcome) -> list[float]:
    """The learning rate of each step, as a share of the peak."""
    return [rate / of.trainer.args.learning_rate for rate in of.rates]


def shares(*values: float) -> object:
    return pytest.approx(values, abs=1e-4)


def rate_of_sgd(of: Outcome) -> float:
    _, change, gradient = of.update(step=1)
    return (change.norm() / gradient.norm()).item()


def norm(of: Outcome) -> float:
    """The norm of the gradient that the optimizer got at its second step."""
    return of.update(step=1)[2].norm().item()


def noise(of: Outcome) -> float:
    """NEFTune's alpha: the largest noise on an embedding, times the root of the number of its elements."""
    assert of.noise is not None
    return of.noise.abs().max().item() * (of.noise.numel() ** 0.5)


class Above(float):
    """Equal to every larger number."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, float) and float(self) < other

    __hash__ = float.__hash__


SINGLE, HALF = torch.float32, torch.bfloat16
ALIKE = (SINGLE, SINGLE, SINGLE)

CASES = [
    Case(
        "training.learning_rate",
        rate_of_sgd,
        {0.01: pytest.approx(0.01, rel=1e-3), 0.5: pytest.approx(0.5, rel=1e-3)},
        SGD,
    ),
    Case("training.max_steps", lambda of: of.steps, {3: 3, 1: 1}),
    Case(
        "training.num_train_epochs",
        lambda of: of.steps,
        {0.5: 1, 2.0: 4},
        {"training.max_steps": -1, "training.per_device_train_batch_size": ROWS // 2},
    ),
    Case(
        "training.per_device_train_batch_size",
        lambda of: of.rows,
        {1: [[1], [2], [3]], 2: [[1, 2], [3, 4], [5, 6]]},
    ),
    Case(
        "training.gradient_accumulation_steps",
        lambda of: (of.steps, of.rows),
        {1: (3, [[1], [2], [3]]), 2: (3, [[1], [2], [3], [4], [5], [6]])},
    ),
    Case("training.max_grad_norm", norm, {0.0: Above(0.1), 0.01: pytest.approx(0.01, rel=1e-3)}, SGD),
    Case(
        "training.lr_scheduler_type",
        rates,
        {
            "linear": shares(0, 0.5, 1, 0.75, 0.5, 0.25),
            "cosine": shares(0, 0.5, 1, 0.85355, 0.5, 0.14645),
            "constant": shares(1, 1, 1, 1, 1, 1),
            "constant_with_warmup": shares(0, 0.5, 1, 1, 1, 1),
            "polynomial": shares(0, 0.5, 1, 0.775, 0.55, 0.325),  # a straight line down to 1e-7
            "inverse_sqrt": shares(0, 0.5, 1, 0.81650, 0.70711, 0.63246),
        },
        SIX,
    ),
    Case("training.warmup_steps", rates, {0: shares(1, 1, 1, 1), 3: shares(0, 1 / 3, 2 / 3, 1)}, FOUR),
    Case("training.warmup_ratio", rates, {0.0: shares(1, 1, 1, 1), 0.5: shares(0, 0.5, 1, 1)}, FOUR),
    Case(
        "training.disable_shuffling",
        lambda of: of.rows == sorted(of.rows),
        {True: True, False: False},
        {"training.max_steps": ROWS},
    ),
    Case("training.neftune_noise_alpha", noise, {None: 0.0, 5.0: pytest.approx(5.0, rel=0.02)}),
    Case("training.bf16", kinds, {None: ALIKE, False: ALIKE, True: (SINGLE, HALF, SINGLE)}, FULL),
    Case("training.pure_bf16", kinds, {False: ALIKE, True: (HALF, HALF, HALF)}),
    Case("training.pure_bf16", kinds, {False: ALIKE, True: (HALF, HALF, HALF)}, FULL),
    Case("training.dataloader_num_workers", lambda of: of.processes, {0: 0, 2: 2}),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.key)
def test_outcomes(case: Case, train: Train) -> None:
    case.check(train)


@pytest.mark.parametrize("key", ["training.bf16", "training.pure_bf16"])
def test_half_precision_moves_the_loss_a_little(key: str, train: Train) -> None:
    whole, half = train(FULL).losses[0], train({**FULL, key: True}).losses[0]
    assert half != whole and half == pytest.approx(whole, rel=0.01)


def test_accumulated_batches_are_one_large_batch(train: Train) -> None:
    parts = train({**SGD, "training.gradient_accumulation_steps": 4})
    whole = train({**SGD, "training.per_device_train_batch_size": 4})
    assert parts.losses == pytest.approx(whole.losses, rel=1e-5)
    for name, weight in whole.changed().items():
        torch.testing.assert_close(parts.weights[-1][name], weight, atol=1e-6, rtol=1e-4)


def test_noise_on_the_embeddings_moves_the_loss_of_training_alone(train: Train) -> None:
    evaluated = {
        "training.eval_strategy": "steps",
        "training.eval_steps": 1,
        "data.val_size": 4.0,
        "training.learning_rate": 1e-9,
    }
    plain, noisy = train(evaluated), train({**evaluated, "training.neftune_noise_alpha": 5.0})
    assert plain.losses[0] != noisy.losses[0]
    assert plain.log[1]["eval_loss"] == pytest.approx(noisy.log[1]["eval_loss"], rel=1e-6)


@parameter("training.seed", "training.data_seed")
def test_data_seed_decides_the_order_and_seed_where_it_is_not_given(train: Train) -> None:
    shuffled = {"training.disable_shuffling": False, "training.max_steps": ROWS}

    def order(seed: int, data_seed: int | None) -> list[list[int]]:
        return train({**shuffled, "training.seed": seed, "training.data_seed": data_seed}).rows

    assert order(1, 5) == order(2, 5) != order(2, 6)
    assert order(1, None) != order(2, None)
    assert order(5, None) == order(1, 5), "null takes seed"
    assert sorted(order(1, 5)) == [[row] for row in range(1, ROWS + 1)]


@parameter("training.seed")
def test_seed_decides_where_the_adapters_start(train: Train) -> None:
    first, same, other = (train(changes) for changes in ({}, {"training.seed": 42}, {"training.seed": 43}))
    starts = [{n: w for n, w in of.weights[0].items() if "lora_A" in n} for of in (first, same, other)]
    for name, weight in starts[0].items():
        assert weight.equal(starts[1][name]) and not weight.equal(starts[2][name])
    assert first.losses == same.losses != other.losses


@parameter("training.seed")
def test_seed_decides_the_dropout(train: Train) -> None:
    one, other = (train({"training.seed": seed, "method.lora_dropout": 0.5}) for seed in (42, 43))
    assert one.losses[0] == other.losses[0] and one.losses[1] != other.losses[1]
