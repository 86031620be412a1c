"""Rollouts and what the models say of them: padding changes nothing, and each sampling parameter acts."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.ppo_runs import ANSWERS, PAD, PROMPTS, ROWS, rollouts, save_adapter, save_full
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from llmf_hydra.config.groups.data import DataConfig
from llmf_hydra.config.groups.generation import GenerationConfig
from llmf_hydra.data.chat.stops import turn_stops
from llmf_hydra.data.chat.template import load_chat
from llmf_hydra.errors import TrainingFailed
from llmf_hydra.models.architecture import padding_free
from llmf_hydra.models.builtin import tiny
from llmf_hydra.models.value_head import PolicyWithValue
from llmf_hydra.training.generation import Rollouts, roll_out, sampling, seeded
from llmf_hydra.training.layout.rows import PADDED, Layout, rows_apart
from llmf_hydra.training.rewards.adapter import AdapterReward
from llmf_hydra.training.rewards.model import ModelReward
from llmf_hydra.training.rewards.protocol import Row, score
from llmf_hydra.training.rl.losses import log_probs
from llmf_hydra.training.rl.passes import Spans, forward_pass
from llmf_hydra.training.rl.plan import Plan

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def own_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMF_CACHE", str(cache))


@pytest.fixture
def policy() -> PreTrainedModel:
    """The tiny model with a far from uniform distribution, so that what is likely is likely."""
    model = AutoModelForCausalLM.from_pretrained(tiny.ready()).eval()
    torch.manual_seed(3)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(3) if weight.dim() == 2 else None
    return model


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(tiny.ready())


def generation(**values: Any) -> GenerationConfig:
    return GenerationConfig(**{"temperature": 1.0, "top_p": 1.0, "top_k": 0, "max_new_tokens": 6, **values})  # pyright: ignore


def answers(policy: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, **values: Any) -> list[list[int]]:
    """Sampled answers to the prompts, without padding."""
    with seeded(7, CPU):
        found = roll_out(policy, PROMPTS * 4, sampling(generation(**values), policy, tokenizer))
    return [ids[kept].tolist() for ids, kept in zip(found.answers, found.mask, strict=True)]


@pytest.mark.parametrize("layout", [PADDED, Layout(None, by_row=True)], ids=["padded", "end to end"])
def test_padding_changes_neither_log_probs_nor_values(policy: PreTrainedModel, layout: Layout) -> None:
    padding_free.register()
    model = PolicyWithValue(policy)
    torch.nn.init.normal_(model.value_head.weight)
    together = rollouts(PROMPTS, ANSWERS)
    spans = Spans.of(together.attention, together.mask)
    assert spans == Spans(tuple(map(len, PROMPTS)), tuple(map(len, ANSWERS)))
    given = forward_pass(together.ids, together.attention, spans, together.width, layout)
    assert given.tokens.tolist() == [token for answer in ANSWERS for token in answer]
    with torch.no_grad():
        with rows_apart(given.inputs, given.lengths):
            logits, values = model(given.inputs, given.predicts)
        found = log_probs(logits, given.tokens, 1.0).split(spans.answers)
        for row, (prompt, answer) in enumerate(zip(PROMPTS, ANSWERS, strict=True)):
            ids = torch.tensor([prompt + answer])
            output = policy(ids, output_hidden_states=True)
            alone = torch.log_softmax(output.logits[0, len(prompt) - 1 : -1], dim=-1)
            expected = alone[torch.arange(len(answer)), torch.tensor(answer)]
            states = model.value_head(output.hidden_states[-1][0, len(prompt) - 1 : -1]).squeeze(-1)
            assert torch.allclose(found[row], expected, atol=2e-5)
            assert torch.allclose(values.split(spans.answers)[row], states, atol=2e-5)


def test_greedy_answers_of_a_batch_are_those_of_each_prompt(
    policy: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    together = answers(policy, tokenizer, do_sample=False)[:3]
    greedy = sampling(generation(do_sample=False), policy, tokenizer)
    for prompt, answer in zip(PROMPTS, together, strict=True):
        alone = roll_out(policy, [prompt], greedy)
        assert alone.answers[0][alone.mask[0]].tolist() == answer


@pytest.mark.parametrize(
    ("name", "value"),
    [("do_sample", False), ("temperature", 0.3), ("top_p", 0.3), ("top_k", 2), ("repetition_penalty", 0.05)],
)
def test_each_sampling_parameter_acts(
    name: str, value: Any, policy: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    plain = answers(policy, tokenizer)
    assert answers(policy, tokenizer) == plain  # the seed decides
    assert answers(policy, tokenizer, **{name: value}) != plain


def test_top_k_of_one_is_the_likeliest(policy: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    assert answers(policy, tokenizer, top_k=1) == answers(policy, tokenizer, do_sample=False)


def test_lengths(policy: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """max_new_tokens counts the answer; with 0, max_length counts prompt and answer of each row by itself."""
    assert {len(answer) for answer in answers(policy, tokenizer, do_sample=False, max_new_tokens=3)} == {3}
    by_length = answers(policy, tokenizer, do_sample=False, max_new_tokens=0, max_length=8)[:3]
    assert [len(answer) for answer in by_length] == [2, 6, 4]  # prompts of 6, 2 and 4 tokens


def test_random_numbers_are_left_as_they_were() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with seeded(1, CPU):
        torch.rand(10)
    assert torch.equal(torch.rand(3), expected)


def test_an_adapter_on_the_shared_base_scores_as_plain_peft(tmp_path: Path) -> None:
    scorer = save_adapter(tmp_path)
    base = AutoModelForCausalLM.from_pretrained(tiny.ready())
    batch = rollouts(PROMPTS, ANSWERS)
    found = AdapterReward(base, str(tmp_path), PAD)(batch, ROWS)
    for row, (prompt, answer) in enumerate(zip(PROMPTS, ANSWERS, strict=True)):
        with torch.no_grad():
            expected = scorer(input_ids=torch.tensor([prompt + answer])).logits[0, 0]
            bare = scorer.disable_adapter()
            with bare:
                without = scorer(input_ids=torch.tensor([prompt + answer])).logits[0, 0]
        assert found[row] == pytest.approx(float(expected), abs=1e-4)
        assert abs(float(expected - without)) > 1e-3  # the adapter says something


def test_a_model_of_its_own_scores_as_plain_transformers(tmp_path: Path) -> None:
    scorer = save_full(tmp_path)
    found = ModelReward(scorer, "reward")(rollouts(PROMPTS, ANSWERS), ROWS)
    for row, (prompt, answer) in enumerate(zip(PROMPTS, ANSWERS, strict=True)):
        with torch.no_grad():
            expected = scorer(input_ids=torch.tensor([prompt + answer])).logits[0, 0]
        assert found[row] == pytest.approx(float(expected), abs=1e-4)


class ByLength:
    """A verifier: 1 where the answer has as many tokens as its row's `wanted` column says."""

    name = "by_length"

    def __call__(self, rollouts: Rollouts, rows: Sequence[Row]) -> torch.Tensor:
        wanted = torch.tensor([row["wanted"] for row in rows])
        return (rollouts.mask.sum(dim=1) == wanted).float()


def test_a_reward_sees_the_columns_of_the_rows(tokenizer: PreTrainedTokenizerBase) -> None:
    rows = [{**row, "wanted": wanted} for row, wanted in zip(ROWS, (3, 4, 1), strict=True)]
    assert score(ByLength(), rollouts(PROMPTS, ANSWERS), rows, tokenizer).tolist() == [1.0, 0.0, 1.0]


def test_a_score_that_is_not_finite_names_model_and_prompt(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    scorer = save_full(tmp_path)
    with torch.no_grad():
        scorer.get_input_embeddings().weight[ANSWERS[1][0]] = torch.nan  # of the second answer alone
    with pytest.raises(TrainingFailed) as failed:
        score(ModelReward(scorer, "./my_reward"), rollouts(PROMPTS, ANSWERS), ROWS, tokenizer)
    assert "rlhf.reward_model=./my_reward: gave the score NaN" in str(failed.value)
    assert repr(tokenizer.decode(PROMPTS[1])) in str(failed.value)


def test_a_score_is_read_within_an_answer_cut_at_max_length(
    policy: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    """With max_new_tokens=0 each row has a limit of its own; what generation wrote past it is padding."""
    scorer = save_full(tmp_path)
    found = roll_out(policy, PROMPTS, sampling(generation(max_new_tokens=0, max_length=8), policy, tokenizer))
    assert found.mask.sum(dim=1).tolist() == [2, 6, 4]
    assert (found.answers[~found.mask] == PAD).all()
    scores = ModelReward(scorer, "reward")(found, ROWS)
    for row, prompt in enumerate(PROMPTS):
        whole = [*prompt, *found.answers[row][found.mask[row]].tolist()]
        with torch.no_grad():
            alone = float(scorer(input_ids=torch.tensor([whole])).logits)
        assert scores[row] == pytest.approx(alone, abs=1e-4)


def test_generation_stops_where_a_turn_of_several_tokens_ends(
    policy: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    """The text counts, not the tokens: they merge with what stands before."""
    (greedy,) = answers(policy, tokenizer, do_sample=False, max_new_tokens=12)[1:2]
    text = tokenizer.decode(greedy)
    stop = text[len(text) // 3 : len(text) // 3 + 4]
    how = sampling(generation(do_sample=False, max_new_tokens=12), policy, tokenizer, (stop,))
    found = roll_out(policy, PROMPTS[1:2], how)
    answer = found.answers[0][found.mask[0]].tolist()
    assert answer == greedy[: len(answer)] and len(answer) < len(greedy)
    assert stop in tokenizer.decode(answer) and stop not in tokenizer.decode(answer[:-1])
    assert found.ended.tolist() == [True]


def test_the_ends_of_turns_of_templates(tokenizer: PreTrainedTokenizerBase) -> None:
    def stops(name: str | None) -> tuple[str, ...]:
        return turn_stops(load_chat(DataConfig(template=name), GenerationConfig(), tokenizer))

    assert stops("llama3") == ("<|eot_id|>",) and stops("alpaca") == ()
    assert stops(None) == ("<|im_end|>",)  # the tokenizer's own template
    own = AutoModelForCausalLM.from_pretrained(tiny.ready())
    how = sampling(generation(), own, tokenizer, stops("llama3"))
    assert how.stop_texts is not None and how.stop_texts.texts == ("<|eot_id|>",)
    assert sampling(generation(), own, tokenizer, stops("chatml")).stop_texts is None  # a single token


PLAN = Plan(prompts=10, rows_a_batch=2, batches_a_step=2, buffer_size=2, passes=3, seed=1)


def test_an_epoch_answers_every_prompt_once() -> None:
    drawn = [row for buffer in range(5) for batch in PLAN.rollouts(buffer) for row in batch]
    assert all(sorted(drawn[at : at + 10]) == list(range(10)) for at in (0, 10, 20, 30))
    assert drawn[:10] != drawn[10:20]
    assert PLAN.steps_a_buffer == 6 and PLAN.steps_an_epoch == 12


def test_each_pass_trains_every_row_of_the_buffer_once() -> None:
    passes = [sum((PLAN.batches(step) for step in (first, first + 1)), []) for first in (0, 2, 4)]
    assert all(sorted(sum(rows, [])) == list(range(8)) for rows in passes)
    assert len({str(rows) for rows in passes}) == 3  # in an order of its own


def test_the_batch_decides_not_the_order_of_prompts() -> None:
    """Two batches of 2 and one of 4 draw the same prompts and train them in the same steps."""
    other = replace(PLAN, rows_a_batch=4, batches_a_step=1)
    assert other.rollouts(3) == PLAN.rollouts(3)
    assert all(sum(other.batches(step), []) == sum(PLAN.batches(step), []) for step in range(12))


def test_processes_share_the_prompts_of_a_buffer() -> None:
    ranks = [replace(PLAN, world=2, rank=rank, prompts=32) for rank in (0, 1)]
    drawn = [row for buffer in (0, 1) for plan in ranks for batch in plan.rollouts(buffer) for row in batch]
    assert sorted(drawn) == list(range(32))


def test_without_shuffling_the_prompts_come_in_order() -> None:
    plan = replace(PLAN, shuffle=False)
    assert plan.rollouts(0) == [[0, 1, 2, 3], [4, 5, 6, 7]] and plan.rollouts(1)[0] == [8, 9, 0, 1]


def test_no_two_rollout_batches_share_a_seed() -> None:
    """Of consecutive buffers, of their batches, of processes; nor with another use of random numbers."""
    plan = replace(PLAN, buffer_size=8)
    ranks = [replace(plan, world=2, rank=rank) for rank in (0, 1)]
    for plans, wanted in (([plan], 80), (ranks, 160)):
        seeds = [
            p.seed_of("rollout", buffer, batch) for p in plans for buffer in range(10) for batch in range(8)
        ]
        assert len(set(seeds)) == wanted
        others = [p.seed_of(use, n) for p in plans for use in ("pass", "evaluation") for n in range(100)]
        assert len({*seeds, *others}) == wanted + 200 * len(plans)
    assert ranks[0].seed_of("epoch", 3) == ranks[1].seed_of("epoch", 3)
    assert plan.seed_of("rollout", 0) != replace(plan, seed=2).seed_of("rollout", 0)
