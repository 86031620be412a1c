"""`method=oft`: blocks, targets, dropout; saved, loaded by plain PEFT, trained on, refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from support.adapter_runs import logits, merged, save
from support.command_line import Cli
from support.stage_runs import SGD, Build, composed, steps
from transformers import AutoModelForCausalLM

from llmf_hydra import refusals
from llmf_hydra.errors import Refused
from llmf_hydra.models.builtin import tiny

SFT = ["stage=sft", "method=oft", *SGD, "training.learning_rate=0.5", "model.compute_dtype=float32"]


def blocks(model: Any) -> set[tuple[int, ...]]:
    """Shapes of the trained weights: blocks, and numbers in a block of a skew-symmetric matrix."""
    return {tuple(weight.shape) for name, weight in model.named_parameters() if weight.requires_grad}


def targets(model: Any) -> set[str]:
    names = [name for name, weight in model.named_parameters() if weight.requires_grad]
    return {name.partition(".oft_R")[0].rpartition(".")[2] for name in names}


def test_blocks_targets_and_dropout(build: Build) -> None:
    assert blocks(build(*SFT).model) == {(2, 32 * 31 // 2), (4, 32 * 31 // 2)}, (
        "64 and 128 inputs, blocks of 32"
    )
    assert blocks(build(*SFT, "method.oft_block_size=16").model) == {(4, 120), (8, 120)}
    assert blocks(build(*SFT, "method.oft_rank=4").model) == {(4, 120), (4, 32 * 31 // 2)}
    assert targets(build(*SFT, "method.oft_target='q_proj,.*mlp.*'").model) == {
        "q_proj", "gate_proj", "up_proj", "down_proj"
    }  # fmt: skip
    plain, dropped = steps(build(*SFT))[0], steps(build(*SFT, "method.module_dropout=0.5"))[0]
    assert plain[0] == dropped[0] != plain[1] != dropped[1], "at the start every block is the identity"


def test_saved_it_loads_in_plain_peft_and_is_trained_on(build: Build) -> None:
    trainer = build(*SFT, "method.additional_target=norm")
    torch.testing.assert_close(logits(trainer.model), logits(merged()), atol=1e-5, rtol=1e-5)
    steps(trainer)
    trainer.save_final()
    final = trainer.context.out / "final"
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny.ready()), str(final))
    assert (logits(plain) - logits(merged())).abs().max() > 1e-3, "nothing was learned"
    torch.testing.assert_close(logits(plain), logits(trainer.model), atol=1e-5, rtol=1e-5)
    again = build(*SFT, f"model.adapter_name_or_path={final}")
    torch.testing.assert_close(logits(again.model), logits(trainer.model), atol=1e-5, rtol=1e-5)
    on_top = build("stage=sft", *SGD, f"model.adapter_name_or_path={final}", "method.create_new_adapter=true",
                   "model.compute_dtype=float32")  # fmt: skip
    torch.testing.assert_close(logits(on_top.model), logits(trainer.model), atol=1e-4, rtol=1e-4)
    dpo = build("stage=dpo", *SFT[1:], f"model.adapter_name_or_path={final}")
    assert steps(dpo)[0][0] == pytest.approx(0.693147, abs=1e-5)
    with dpo.reference.model() as reference:
        torch.testing.assert_close(logits(reference), logits(plain), atol=1e-5, rtol=1e-5)
    lora = composed("stage=sft", f"model.adapter_name_or_path={final}")
    (problem,) = refusals.problems(lora, {}, [refusals.DISK])
    assert "is an adapter of the type OFT, where LORA is taken; set method=oft" in str(problem)


def test_a_resumed_run_gives_the_same(build: Build) -> None:
    words = [*SFT, "training.max_steps=4", "training.save_strategy=steps", "training.save_steps=2",
             "method.module_dropout=0.5"]  # fmt: skip
    whole = build(*words)
    losses, weights = steps(whole)
    again = build(*words)
    again.train(resume_from_checkpoint=str(Path(whole.args.output_dir) / "checkpoint-2"))
    assert [line["loss"] for line in again.state.log_history if "loss" in line] == losses
    assert all(torch.equal(w, weights[n]) for n, w in again.model.named_parameters() if w.requires_grad)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["method.oft_block_size=12"], "oft_block_size=12: doesn't divide the 64 inputs of model.layers.0.self_attn"),
        (["method.oft_rank=3"], "method.oft_rank=3: doesn't divide the 64 inputs"),
        (["method.oft_target=q_prj"], "method.oft_target=q_prj: the model has no such module; did you mean 'q_proj'?"),
        (["method.oft_target=embed_tokens"], "model.embed_tokens is a Embedding, which takes no adapter"),
    ],
    ids=["size", "number", "name", "embedding"],
)  # fmt: skip
def test_what_does_not_fit_is_refused(build: Build, more: list[str], said: str) -> None:
    with pytest.raises(Refused) as refused:
        build(*SFT, *more)
    assert said in str(refused.value)


def test_from_the_command_line(cli: Cli, tmp_path: Path, first: Path) -> None:
    short = ["model=tiny", "training.max_steps=2", "training.eval_strategy=no", "data.val_size=0",
             "data.max_samples=16", "training.plot_loss=false"]  # fmt: skip
    done = cli("stage=sft", "method=oft", "method.oft_block_size=16", *short, "hydra.run.dir=oft")
    assert done.returncode == 0, done.stderr
    known = json.loads((tmp_path / "oft" / "final" / "adapter_config.json").read_text())
    assert (known["peft_type"], known["oft_block_size"]) == ("OFT", 16)
    assert "`method.oft_block_size` | 16" in (tmp_path / "oft" / "final" / "README.md").read_text()
    refused = cli("stage=sft", "method=oft", "method.lora_rank=4", *short)
    assert refused.returncode == 2 and "method.lora_rank=4: has no effect with method=oft" in refused.stderr
    refused = cli("stage=sft", "method=oft", f"model.adapter_name_or_path={first}", *short)
    assert refused.returncode == 2 and "set method=lora" in refused.stderr


def test_an_adapter_in_a_folder_of_a_folder(build: Build, tmp_path: Path, first: Path) -> None:
    """`model.adapter_folder`, with several adapters."""
    for name, seed in (("a", 1), ("b", 2)):
        save(tmp_path / name / "best", tiny.ready(), seed)
    words = [f"model.adapter_name_or_path='{tmp_path}/a,{tmp_path}/b'", "model.adapter_folder=best"]
    trainer = build("stage=sft", *SGD, "model.compute_dtype=float32", *words)
    expected = logits(merged(tmp_path / "a" / "best", tmp_path / "b" / "best"))
    torch.testing.assert_close(logits(trainer.model), expected, atol=1e-4, rtol=1e-4)
    gone = composed("stage=sft", words[0], "model.adapter_folder=last")
    assert "a/last: there is no such folder" in str(refusals.problems(gone, {}, [refusals.DISK])[0])
