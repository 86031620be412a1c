"""Each formula of PPO against numbers worked out by hand, and GAE against its definition."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmf_hydra.training.generation import answer_mask
from llmf_hydra.training.rl.advantages import gae, token_rewards, whiten
from llmf_hydra.training.rl.kl import AdaptiveKl, RunningMoments
from llmf_hydra.training.rl.losses import entropies, log_probs, policy_losses, value_losses


def close(found: torch.Tensor, expected: list, tolerance: float = 1e-6) -> bool:
    return torch.allclose(found, torch.tensor(expected, dtype=found.dtype), atol=tolerance, rtol=0)


def test_gae() -> None:
    """gamma 0.5, lambda 0.5: delta = [1 + .5 - 2, 2 + 1.5 - 1, 4 - 3] = [-.5, 2.5, 1]."""
    rewards, values = torch.tensor([[1.0, 2.0, 4.0]]), torch.tensor([[2.0, 1.0, 3.0]])
    found = gae(rewards, values, torch.ones(1, 3, dtype=torch.bool), 0.5, 0.5)
    assert close(found, [[-0.5 + 0.25 * 2.5 + 0.0625, 2.5 + 0.25, 1.0]])


def test_gae_ends_with_the_answer() -> None:
    """What stands off the mask, here 99, is never seen: the first answer has one token."""
    rewards, values = torch.tensor([[1.0, 99.0], [1.0, 2.0]]), torch.tensor([[0.5, 99.0], [0.5, 1.0]])
    found = gae(rewards, values, torch.tensor([[True, False], [True, True]]), 1.0, 0.95)
    assert close(found, [[0.5, 0.0], [1.0 + 1.0 - 0.5 + 0.95 * 1.0, 1.0]])


numbers = st.floats(-5, 5, width=32)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(numbers, numbers), min_size=1, max_size=9),
    st.integers(0, 3),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_gae_is_its_definition(
    tokens: list[tuple[float, float]], padding: int, gamma: float, lam: float
) -> None:
    """A_t = sum over k of (gamma lambda)^k delta_{t+k}, written as two loops, on an answer with padding behind."""
    rewards, values = ([token[at] for token in tokens] for at in (0, 1))
    n = len(tokens)
    delta = [rewards[t] + gamma * (values[t + 1] if t + 1 < n else 0.0) - values[t] for t in range(n)]
    expected = [sum((gamma * lam) ** (k - t) * delta[k] for k in range(t, n)) for t in range(n)] + [
        0.0
    ] * padding
    rows = (torch.tensor([row + [7.0] * padding], dtype=torch.float64) for row in (rewards, values))
    mask = torch.tensor([[True] * n + [False] * padding])
    assert close(gae(*rows, mask, gamma, lam), [expected], 1e-9)


def test_rewards_of_tokens() -> None:
    """-0.5 times the KL at each token; the scores 3 and 4 at the last tokens of two answers."""
    kl = torch.tensor([[0.2, 0.4, 9.0], [1.0, 0.0, -2.0]])
    mask = torch.tensor([[True, True, False], [True, True, True]])
    found = token_rewards(torch.tensor([3.0, 4.0]), kl, mask, 0.5)
    assert close(found, [[-0.1, -0.2 + 3.0, 0.0], [-0.5, 0.0, 1.0 + 4.0]])


def test_whitening() -> None:
    """1, 3, 5 have mean 3 and variance 8/3; what is masked, 100, counts not."""
    values, mask = torch.tensor([[1.0, 3.0], [5.0, 100.0]]), torch.tensor([[True, True], [True, False]])
    one = 2 / math.sqrt(8 / 3)
    assert close(whiten(values, mask), [[-one, 0.0], [one, 0.0]])
    assert close(whiten(values, mask, shift=False), [[3 - one, 3.0], [3 + one, 0.0]])


def test_whitening_over_processes() -> None:
    """Two processes with one value each, 1 and 3: the other's part comes by the sum."""
    parts = iter(
        [torch.tensor(1.0), torch.tensor(3.0), torch.tensor(1.0)]
    )  # count, sum and square of the other
    found = whiten(torch.tensor([[1.0]]), torch.tensor([[True]]), total=lambda tensor: tensor + next(parts))
    assert close(found, [[-1.0]])


def test_policy_loss() -> None:
    """Ratios 1.5 and 0.5 with clip 0.2 and advantages 2 and -2: the clip holds back gains and keeps harm whole."""
    new = torch.log(torch.tensor([1.5, 1.5, 0.5, 0.5, 1.1]))
    advantages = torch.tensor([2.0, -2.0, 2.0, -2.0, 2.0])
    losses, clipped = policy_losses(new, torch.zeros(5), advantages, 0.2)
    assert close(losses, [-2.4, 3.0, -1.0, 1.6, -2.2])
    assert clipped.tolist() == [True, False, False, True, False]


def test_the_gradient_stops_where_the_clip_acts() -> None:
    new = torch.log(torch.tensor([1.5, 1.1])).requires_grad_()
    policy_losses(new, torch.zeros(2), torch.tensor([2.0, 2.0]), 0.2)[0].sum().backward()
    assert new.grad is not None and close(new.grad, [0.0, -2.2])


def test_value_loss() -> None:
    """Old value 1, return 2, clip 0.2: a value of 1.5 counts as 1.2, one of 0.5 counts as it is."""
    losses, clipped = value_losses(torch.tensor([1.5, 0.5, 1.1]), torch.ones(3), torch.full((3,), 2.0), 0.2)
    assert close(losses, [0.5 * 0.64, 0.5 * 2.25, 0.5 * 0.81])
    assert clipped.tolist() == [True, False, False]


def test_controller() -> None:
    """Far above the target by 2 %, below by 2 %, and half as much at half the clip."""
    controller = AdaptiveKl(target=6.0, coefficient=0.2)
    controller.update(60.0)
    assert controller.coefficient == pytest.approx(0.2 * 1.02)
    controller.update(0.0)
    assert controller.coefficient == pytest.approx(0.2 * 1.02 * 0.98)
    controller.update(6.6)
    assert controller.coefficient == pytest.approx(0.2 * 1.02 * 0.98 * 1.01)
    other = AdaptiveKl(target=60.0, coefficient=0.2)
    other.update(60.0)
    assert other.coefficient == 0.2


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.floats(-100, 100), min_size=1, max_size=5), min_size=1, max_size=5))
def test_moments_in_batches_are_those_of_all(batches: list[list[float]]) -> None:
    moments = RunningMoments()
    for batch in batches:
        moments.update(torch.tensor(batch, dtype=torch.float64))
    scores = torch.tensor([score for batch in batches for score in batch], dtype=torch.float64)
    deviation = float(scores.std()) if len(scores) > 1 else 0.0
    assert moments.mean == pytest.approx(float(scores.mean()), abs=1e-9)
    assert moments.deviation == pytest.approx(deviation, abs=1e-6) or (
        deviation < 1e-6 and moments.deviation == 1
    )


def test_normalised_scores() -> None:
    moments = RunningMoments()
    moments.update(torch.tensor([1.0, 3.0]))
    assert close(moments.normalised(torch.tensor([1.0, 3.0])), [-1 / math.sqrt(2), 1 / math.sqrt(2)])
    alike = RunningMoments()
    alike.update(torch.tensor([4.0, 4.0]))
    assert close(alike.normalised(torch.tensor([4.0])), [0.0])


def test_log_probs_and_entropy() -> None:
    """Probabilities 1/4 and 3/4; at temperature 2 they are 1 / (1 + sqrt 3) and the rest."""
    logits = torch.log(torch.tensor([[[1.0, 3.0]]]))
    token = torch.tensor([[0]])
    assert close(log_probs(logits, token, 1.0), [[math.log(0.25)]])
    cool = 1 / (1 + math.sqrt(3))
    assert close(log_probs(logits, token, 2.0), [[math.log(cool)]])
    assert close(entropies(logits, 2.0), [[-cool * math.log(cool) - (1 - cool) * math.log(1 - cool)]])


def test_mask_of_answers() -> None:
    """2 and 7 end an answer; after its end, padding (2 again) is no part of it; the last row is cut at 2 tokens."""
    answers = torch.tensor([[5, 2, 2, 2], [5, 7, 5, 5], [5, 5, 5, 5], [5, 5, 2, 2]])
    mask, ended = answer_mask(answers, torch.tensor([4, 4, 4, 2]), [2, 7])
    assert mask.sum(dim=1).tolist() == [2, 2, 4, 2]
    assert mask.int().diff(dim=1).max() == 0  # no hole
    assert ended.tolist() == [True, True, False, False]
