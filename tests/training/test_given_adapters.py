"""Runs that go on from saved adapters: what is trained, what is merged, and what the reference is then."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForCausalLM
from support.adapter_runs import logits, merged, save
from support.command_line import Cli
from support.stage_runs import SGD, Build, composed, steps

from llmf_hydra import refusals
from llmf_hydra.errors import Refused
from llmf_hydra.models.builtin import tiny

SFT, DPO, KTO, RM = (
    [f"stage={stage}", *SGD, "training.learning_rate=0.1"] for stage in ("sft", "dpo", "kto", "rm")
)


@pytest.fixture
def second(first: Path, tmp_path: Path) -> Path:
    return save(tmp_path / "second", tiny.ready(), 2, rank=2)


def ranks(model: Any) -> set[int]:
    """Ranks of the adapters that are trained."""
    return {
        weight.shape[0]
        for name, weight in model.named_parameters()
        if weight.requires_grad and "lora_A" in name
    }


def test_the_last_adapter_is_trained_on_and_those_before_it_are_merged(
    build: Build, first: Path, second: Path
) -> None:
    one = build(*SFT, f"model.adapter_name_or_path={first}")
    torch.testing.assert_close(logits(one.model), logits(merged(first)), atol=1e-4, rtol=1e-4)
    assert ranks(one.model) == {4}
    both = build(*SFT, f"model.adapter_name_or_path='{first},{second}'")
    torch.testing.assert_close(logits(both.model), logits(merged(first, second)), atol=1e-4, rtol=1e-4)
    assert ranks(both.model) == {2}
    with both.model.disable_adapter():
        torch.testing.assert_close(logits(both.model), logits(merged(first)), atol=1e-4, rtol=1e-4)
    plain = steps(build(*SFT))[0]
    assert plain[0] != steps(one)[0][0] != steps(both)[0][0]


def test_a_new_adapter_is_put_on_those_given(build: Build, first: Path, second: Path) -> None:
    new = build(*SFT, f"model.adapter_name_or_path='{first},{second}'", "method.create_new_adapter=true",
                "method.lora_rank=3")  # fmt: skip
    torch.testing.assert_close(logits(new.model), logits(merged(first, second)), atol=1e-4, rtol=1e-4)
    with new.model.disable_adapter():
        torch.testing.assert_close(logits(new.model), logits(merged(first, second)), atol=1e-4, rtol=1e-4)
    assert ranks(new.model) == {3}


def weights(model: Any, adapter: str) -> dict[str, torch.Tensor]:
    return {n: w.detach().clone() for n, w in model.named_parameters() if f".{adapter}." in n}


@pytest.mark.parametrize("stage", [DPO, KTO], ids=["dpo", "kto"])
def test_the_reference_is_the_adapter_that_the_run_started_from(
    stage: list[str], build: Build, first: Path
) -> None:
    trainer = build(*stage, f"model.adapter_name_or_path={first}")
    with trainer.reference.model() as reference:
        torch.testing.assert_close(logits(reference), logits(merged(first)), atol=1e-4, rtol=1e-4)
    start = weights(trainer.model, "default")
    losses, _ = steps(trainer)
    if "stage=dpo" in stage:
        assert losses[0] == pytest.approx(torch.log(torch.tensor(2.0)).item(), abs=1e-5)
    assert any((weight != start[name]).any() for name, weight in weights(trainer.model, "default").items())
    with trainer.reference.model() as reference:
        torch.testing.assert_close(logits(reference), logits(merged(first)), atol=1e-4, rtol=1e-4)
    assert trainer.model.active_adapters == ["default"]
    on_new = build(*stage, f"model.adapter_name_or_path={first}", "method.create_new_adapter=true")
    with on_new.reference.model() as reference:
        torch.testing.assert_close(logits(reference), logits(merged(first)), atol=1e-4, rtol=1e-4)


def test_a_quantized_reference_starts_there_too(build: Build, first: Path) -> None:
    pytest.importorskip("bitsandbytes", reason="needs bitsandbytes: pip install 'llmf_hydra[bnb]'")
    eight = build(*DPO, f"model.adapter_name_or_path={first}", "rlhf.ref_model_quantization_bit=8")
    near = logits(eight.reference.own)
    assert (near - logits(merged(first))).abs().mean() < (near - logits(merged())).abs().mean() / 5


def test_a_resumed_run_knows_where_it_started(build: Build, first: Path) -> None:
    words = [*DPO, f"model.adapter_name_or_path={first}", "training.max_steps=4",
             "training.save_strategy=steps", "training.save_steps=2"]  # fmt: skip
    whole = build(*words)
    expected = steps(whole)
    checkpoint = Path(whole.args.output_dir) / "checkpoint-2"
    assert not (checkpoint / "ref").exists()
    again = build(*words)
    again.train(resume_from_checkpoint=str(checkpoint))
    assert [line["loss"] for line in again.state.log_history if "loss" in line] == expected[0]
    for name, weight in weights(again.model, "ref").items():
        assert torch.equal(weight, weights(whole.model, "ref")[name])


def test_a_reward_model_goes_on_from_an_adapter_of_text_or_of_scores(
    build: Build, first: Path, tmp_path: Path
) -> None:
    trainer = build(*RM, f"model.adapter_name_or_path={first}")
    assert any("score" in name for name, weight in trainer.model.named_parameters() if weight.requires_grad)
    base = trainer.model.get_base_model().model
    ids = torch.arange(20, 40)[None]
    with torch.no_grad():
        expected = merged(first).model(input_ids=ids).last_hidden_state
        torch.testing.assert_close(
            base.eval()(input_ids=ids).last_hidden_state, expected, atol=1e-4, rtol=1e-4
        )
    trainer.train()
    trainer.save_model(str(tmp_path / "reward"))
    again = build(*RM, f"model.adapter_name_or_path={tmp_path / 'reward'}")
    torch.testing.assert_close(
        again.model.eval()(input_ids=ids).logits, trainer.model.eval()(input_ids=ids).logits
    )


@pytest.mark.parametrize(
    "word", ["lora_rank=16", "lora_alpha=4", "lora_target=q_proj", "use_dora=true", "additional_target=norm"]
)
def test_what_a_saved_adapter_says_itself_has_no_effect(word: str, cache: Path) -> None:
    key = f"method.{word.partition('=')[0]}"
    words = ["stage=sft", f"method.{word}", "model.adapter_name_or_path=a/b"]
    (problem,) = [p for p in refusals.problems(composed(*words), {}, [refusals.CONFIG]) if p.key == key]
    assert "the adapter a/b is trained on as it is" in str(problem)
    on_new = composed(*words, "method.create_new_adapter=true")
    assert not [p for p in refusals.problems(on_new, {}, [refusals.CONFIG]) if p.key == key]
    assert not [
        p
        for p in refusals.problems(composed(*words, "launch.allow_extra_args=true"), {}, [refusals.CONFIG])
        if p.key == key
    ]


def test_an_adapter_of_another_shape_is_refused_by_its_name(build: Build, first: Path) -> None:
    known = json.loads((first / "adapter_config.json").read_text())
    (first / "adapter_config.json").write_text(json.dumps(known | {"r": 5}))
    with pytest.raises(
        Refused, match=r"model\.adapter_name_or_path=.*first.*aren't those that its config describes"
    ):
        build(*SFT, f"model.adapter_name_or_path={first}")


def test_one_stage_goes_on_where_another_ended(cli: Cli, tmp_path: Path, cache: Path) -> None:
    """From the command line: sft, then dpo on its adapter; plain PEFT loads what comes of it."""
    short = ["model=tiny", "training.max_steps=2", "training.eval_strategy=no", "data.val_size=0",
             "data.max_samples=16", "training.plot_loss=false"]  # fmt: skip
    sft = cli("stage=sft", *short, "method.lora_rank=4", "training.learning_rate=0.05", "hydra.run.dir=sft")
    assert sft.returncode == 0, sft.stderr
    dpo = cli("stage=dpo", *short, "model.adapter_name_or_path=sft/final", "hydra.run.dir=dpo",
              "training.logging_steps=1")  # fmt: skip
    assert dpo.returncode == 0, dpo.stderr
    lines = [json.loads(line) for line in (tmp_path / "dpo" / "log.jsonl").read_text().splitlines()]
    assert next(line["loss"] for line in lines if "loss" in line) == pytest.approx(0.693147, abs=1e-4)
    assert json.loads((tmp_path / "dpo" / "final" / "adapter_config.json").read_text())["r"] == 4
    assert not list((tmp_path / "dpo").rglob("ref"))
    assert AutoPeftModelForCausalLM.from_pretrained(tmp_path / "dpo" / "final").active_adapters == ["default"]
    assert "adapter sft/final" in json.loads((tmp_path / "dpo" / "manifest.json").read_text())["digests"]
    refused = cli("stage=dpo", "method=full", *short, "model.adapter_name_or_path=sft/final")
    assert refused.returncode == 2 and "acts only with method=lora" in refused.stderr
