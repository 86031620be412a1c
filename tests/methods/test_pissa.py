"""`method.pissa_init`: what the base, the adapter and the saved folders hold, and what plain PEFT makes of them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from support.adapter_runs import logits, merged
from support.command_line import Cli, log_of
from support.stage_runs import SGD, Build, composed, steps
from transformers import AutoModelForCausalLM

from llmf_hydra import refusals
from llmf_hydra.errors import Refused
from llmf_hydra.models.builtin import tiny

PISSA = ["method=pissa", "model.compute_dtype=float32", *SGD, "training.learning_rate=0.5"]
SFT = ["stage=sft", *PISSA]


def base() -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny.ready(), dtype=torch.float32)


def residual(folder: Path) -> Any:
    """The base less the components that the adapter took, by plain PEFT."""
    return PeftModel.from_pretrained(base(), str(folder), subfolder="residual").merge_and_unload()


def layer(model: Any) -> Any:
    return model.get_base_model().model.layers[0].mlp.up_proj


@pytest.mark.parametrize("more", [[], ["method.pissa_iter=-1"], ["method.use_rslora=true"], ["method.use_dora=true"]],
                         ids=["fast", "exact", "rslora", "dora"])  # fmt: skip
def test_at_the_start_the_model_is_the_base(build: Build, more: list[str]) -> None:
    model = build(*SFT, *more).model
    torch.testing.assert_close(logits(model), logits(merged()), atol=1e-4, rtol=1e-4)
    with model.disable_adapter():
        assert (logits(model) - logits(merged())).abs().max() > 0.01, "nothing was taken out of the base"


def test_the_adapter_holds_the_largest_components(build: Build) -> None:
    """The residual of the exact decomposition has the other singular values; few iterations come near."""
    expected = torch.linalg.svdvals(base().model.layers[0].mlp.up_proj.weight.detach())
    largest = {}
    for iterations in (-1, 16, 0):
        rest = layer(build(*SFT, f"method.pissa_iter={iterations}").model).base_layer.weight.detach()
        largest[iterations] = torch.linalg.svdvals(rest)[0].item()
    assert largest[-1] == pytest.approx(expected[8].item(), rel=1e-4)
    assert largest[16] == pytest.approx(largest[-1], rel=0.02)
    assert largest[0] > 1.05 * largest[-1]


@pytest.mark.parametrize("more", [[], ["method.use_rslora=true", "method.additional_target=norm"]],
                         ids=["plain", "rslora"])  # fmt: skip
def test_converted_it_is_a_plain_adapter_of_the_base(build: Build, more: list[str]) -> None:
    trainer = build(*SFT, "method.pissa_convert=true", "method.lora_rank=3", *more)
    steps(trainer)
    trainer.save_final()
    final = trainer.context.out / "final"
    assert not (final / "residual").exists()
    assert json.loads((final / "adapter_config.json").read_text())["r"] == 6
    plain = PeftModel.from_pretrained(base(), str(final))
    assert (logits(trainer.model) - logits(merged())).abs().max() > 0.01, "nothing was learned"
    torch.testing.assert_close(logits(plain), logits(trainer.model), atol=1e-4, rtol=1e-4)
    again = build("stage=sft", "model.compute_dtype=float32", *SGD, f"model.adapter_name_or_path={final}")
    torch.testing.assert_close(logits(again.model), logits(trainer.model), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("more", [[], ["method.use_dora=true"]], ids=["plain", "dora"])
def test_unconverted_it_stands_on_the_residual_beside_it(build: Build, more: list[str]) -> None:
    trainer = build(*SFT, "method.lora_rank=3", *more)
    steps(trainer)
    trainer.save_final()
    final = trainer.context.out / "final"
    plain = PeftModel.from_pretrained(residual(final), str(final))
    torch.testing.assert_close(logits(plain), logits(trainer.model), atol=1e-4, rtol=1e-4)
    both = f"model.adapter_name_or_path='{final}/residual,{final}'"
    again = build("stage=sft", "model.compute_dtype=float32", *SGD, both)
    torch.testing.assert_close(logits(again.model), logits(trainer.model), atol=1e-4, rtol=1e-4)
    alone = composed("stage=sft", f"model.adapter_name_or_path={final}")
    (problem,) = refusals.problems(alone, {}, [refusals.DISK])
    assert f"give its residual before it: model.adapter_name_or_path='{final}/residual,{final}'" in str(
        problem
    )
    assert refusals.problems(composed("stage=sft", both), {}, [refusals.DISK]) == []
    named = composed("stage=dpo", f"rlhf.ref_model_adapters={final}")
    assert "give its residual before it" in str(refusals.problems(named, {}, [refusals.DISK])[0])
    reward = composed("stage=ppo", f"rlhf.reward_model={final}", "rlhf.reward_model_type=lora")
    assert "train it with method.pissa_convert=true" in str(refusals.problems(reward, {}, [refusals.DISK]))


@pytest.mark.parametrize("stage", ["dpo", "kto"])
def test_the_reference_is_the_base_though_the_adapter_off_is_not(stage: str, build: Build) -> None:
    trainer = build(f"stage={stage}", *PISSA)
    losses, _ = steps(trainer)
    if stage == "dpo":
        assert losses[0] == pytest.approx(torch.log(torch.tensor(2.0)).item(), abs=1e-5)
    assert (logits(trainer.model) - logits(merged())).abs().max() > 1e-3, "nothing was learned"
    with trainer.reference.model() as reference:
        torch.testing.assert_close(logits(reference), logits(merged()), atol=1e-4, rtol=1e-4)
    assert trainer.reference.store.folder is None, "weights that the run makes itself have no digest"


def test_a_resumed_run_has_the_residual_of_its_checkpoint(build: Build) -> None:
    words = [*SFT, "training.max_steps=4", "training.save_strategy=steps", "training.save_steps=2"]
    whole = build(*words)
    expected, weights = steps(whole)
    checkpoint = Path(whole.args.output_dir) / "checkpoint-2"
    again = build(*words)
    again.train(resume_from_checkpoint=str(checkpoint))
    assert set(again.model.peft_config) == {"default", "ref"}
    assert [line["loss"] for line in again.state.log_history if "loss" in line] == expected
    assert all(torch.equal(weight, weights[name]) for name, weight in again.model.named_parameters()
               if weight.requires_grad)  # fmt: skip
    other = build(*words, "method.pissa_iter=2")  # as a machine whose SVD gives other bits
    assert (layer(other.model).base_layer.weight - layer(whole.model).base_layer.weight).abs().max() > 1e-3
    other.train(resume_from_checkpoint=str(checkpoint))
    torch.testing.assert_close(layer(other.model).base_layer.weight, layer(whole.model).base_layer.weight)
    torch.testing.assert_close(logits(other.model), logits(whole.model), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["method.lora_rank=40"], "method.lora_rank=40: pissa_init has 32 components of model.layers.0"),
        (["method.lora_target=embed_tokens"], "can't take components out of model.embed_tokens, the embedding"),
        (["method.lora_target='q_proj,head'"], "the model has no such module"),
    ],
    ids=["rank", "embedding", "head"],
)  # fmt: skip
def test_weights_without_such_components_are_refused(build: Build, more: list[str], said: str) -> None:
    with pytest.raises(Refused) as refused:
        build(*SFT, *more)
    assert said in str(refused.value)


def test_an_adapter_of_another_tool_lacks_its_residual(first: Path) -> None:
    """PEFT decomposes the base anew when it loads such an adapter, and a fast SVD gives another residual each time."""
    known = json.loads((first / "adapter_config.json").read_text())
    (first / "adapter_config.json").write_text(json.dumps(known | {"init_lora_weights": "pissa_niter_16"}))
    (problem,) = refusals.problems(
        composed("stage=sft", f"model.adapter_name_or_path={first}"), {}, [refusals.DISK]
    )
    assert "was trained on a residual of its base (init_lora_weights=pissa_niter_16)" in str(problem)


@pytest.mark.slow
def test_from_the_command_line(cli: Cli, tmp_path: Path) -> None:
    """A reward model by PiSSA is scored on its residual; the lines at the end and the card name it."""
    short = ["model=tiny", "training.max_steps=2", "training.eval_strategy=no", "data.val_size=0",
             "data.max_samples=16", "training.plot_loss=false", "training.learning_rate=0.05"]  # fmt: skip
    for out, more in (("kept", []), ("converted", ["method.pissa_convert=true"])):
        done = cli("stage=rm", "method=pissa", *short, *more, f"hydra.run.dir={out}")
        assert done.returncode == 0, done.stderr
    card = (tmp_path / "kept" / "final" / "README.md").read_text()
    assert 'subfolder="residual"' in card
    (tmp_path / "rows.jsonl").write_text(
        json.dumps({"instruction": "Say it.", "output": "The sea is wide."}) + "\n"
    )
    scored = [
        json.loads(cli("score", "rows.jsonl", "--model", f"{out}/final").stdout)
        for out in ("kept", "converted")
    ]
    assert scored[0]["score"] == pytest.approx(scored[1]["score"], abs=1e-4)
    assert log_of(tmp_path / "kept") == log_of(tmp_path / "converted")
    sft = cli("stage=sft", "method=pissa", *short, "hydra.run.dir=sft")
    assert "model.adapter_name_or_path='sft/final/residual,sft/final'" in sft.stdout
