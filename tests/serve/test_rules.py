"""What the jobs that use a model refuse before anything is loaded, and what they don't read."""

import json
from pathlib import Path

import pytest

from llmf_hydra import refusals
from llmf_hydra.config import compose
from llmf_hydra.config.conf_files import shipped_values


def problems(*words: str) -> str:
    composed = compose.composed(words)
    shipped = shipped_values(composed.hydra.runtime.choices)
    found = refusals.problems(compose.typed(composed), shipped, words=composed.hydra.overrides.task)
    return "\n".join(map(str, found))


WRONG = [  # in one command each: words, and what is said of them
    {
        "job=chat": "",
        "training.learning_rate=1e-3": "training.learning_rate=0.001: has no effect with job=chat",
        "method.lora_rank=4": "method.lora_rank=4: has no effect with job=chat",
        "data.dataset=demo_instruct": "data.dataset=demo_instruct: has no effect with job=chat",
        "data.media_dir=/etc": "data.media_dir=/etc: has no effect with job=chat",
        "data.cutoff_len=64": "data.cutoff_len=64: has no effect with job=chat",
        "model.shift_attn=true": "model.shift_attn=true: has no effect",
        "serve.port=81": "serve.port=81: has no effect with job=chat: it acts only with job=api",
        "generation.do_sample=false": "",
        "generation.temperature=0.5": "acts only with generation.do_sample=true",
        "generation.max_length=10": "acts only with generation.max_new_tokens=0",
        "generation.length_penalty=2": "generation.length_penalty=2: has no effect with generation.num_beams=1",
        "training.seed=3": "training.seed=3: has no effect with job=chat",
        "generation.eval_num_beams=2": "generation.eval_num_beams=2: has no effect with job=chat",
        "launch.nproc_per_node=2": "launch.nproc_per_node=2: job=chat is one process",
        "launch.use_ray=true": "launch.use_ray=true: job=chat runs where it is started",
        "stage=rm": "stage=rm: gives scores and no text",
        "model.adapter_name_or_path=./gone": "model.adapter_name_or_path=./gone: there is no such folder",
        "quantization.quantization_bit=5": "quantization.quantization_bit=5",
    },
    {
        "job=chat": "",
        "model.infer_backend=vllm": "",
        "generation.num_beams=2": "generation.num_beams=2: contradicts model.infer_backend=vllm",
        "quantization=bnb4": "quantization.quantization_bit=4: contradicts model.infer_backend=vllm",
        "model.use_cache=false": "model.use_cache=false: contradicts model.infer_backend=vllm",
    },
    {"job=api": "", "model.infer_backend=vllm": "needs the package vllm; pip install 'llmf_hydra[vllm]'"},
    {
        "job=api": "",
        "serve.api_key=''": "serve.api_key: is empty",
        "serve.root_path=llm/": "serve.root_path=llm/: must begin with /",
    },
]


@pytest.mark.parametrize("words", WRONG)
def test_what_is_refused(words: dict[str, str]) -> None:
    said = problems("model=tiny", *words)
    assert [wanted for wanted in words.values() if wanted not in said] == [], said


def test_sound_words_are_taken() -> None:
    sound = ["generation.temperature=0.5", "generation.num_beams=2", "generation.length_penalty=2",
             "data.template=chatml", "quantization=bnb4", "stage=dpo"]  # fmt: skip
    assert problems("job=chat", "model=tiny", *sound) == ""
    assert problems("job=api", "model=tiny", "serve.port=0", "serve.api_key=abc") == ""


def test_a_reward_model_has_a_head_that_was_trained(tmp_path: Path) -> None:
    told = "model.model_name_or_path=builtin:tiny: gives text, and stage=rm is of a model that gives scores"
    assert told in problems("job=api", "model=tiny", "stage=rm")
    for task, refused in (("CAUSAL_LM", True), ("SEQ_CLS", False)):
        adapter = {"peft_type": "LORA", "task_type": task, "base_model_name_or_path": "builtin:tiny"}
        (tmp_path / "adapter_config.json").write_text(json.dumps(adapter))
        said = problems("job=api", "model=tiny", "stage=rm", f"model.adapter_name_or_path={tmp_path}")
        assert (f"{tmp_path}: gives text" in said) == refused, said


def test_a_choice_that_the_job_does_not_read_is_refused() -> None:
    assert problems("job=webui", "stage=dpo", "optimizer=galore").splitlines() == [
        "stage=dpo: has no effect with job=webui; leave it out",
        "optimizer=galore: has no effect with job=webui; leave it out",
    ]
    assert "rlhf=ipo: has no effect with job=api" in problems("job=api", "model=tiny", "rlhf=ipo")
    assert problems("job=webui", "launch=local") == ""


def test_from_run_is_for_those_who_use_a_model(tmp_path: Path) -> None:
    said = problems("stage=sft", "model=tiny", f"from_run={tmp_path}")
    assert f"from_run={tmp_path}: has no effect with job=train" in said
