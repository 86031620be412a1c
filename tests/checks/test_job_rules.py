"""Each rule of the jobs that don't train, red: a command line that it refuses, and the sentence."""

import importlib.util
import json
import socket
from pathlib import Path

import pytest

from llmf_hydra import refusals
from llmf_hydra.checks.register import RULES
from llmf_hydra.config import compose
from llmf_hydra.config.choices import TRAINING_JOBS

OUT = "export.export_dir=out"
GPTQ = ("job=export", OUT, "export.export_quantization_bit=4")
# rule -> the words beside model=tiny, and what it says; {here} is a folder with files of each kind
CASES: dict[str, tuple[tuple[str, ...], str]] = {
    "prompts_are_not_cut": (("job=api", "data.cutoff_len=9"), "it cuts the rows of a dataset"),
    "what_answers_runs_here": (("job=api", "launch.use_slurm=true"), "job=api runs where it is started"),
    "one_process_does_it": (("job=export", "launch.nproc_per_node=2"), "job=export is one process"),
    "one_list_of_datasets_is_answered": (("job=predict",), "no dataset is named"),
    "vllm_is_there": (("job=predict", "model.infer_backend=vllm"), "needs the package vllm"),
    "the_server_is_installed": (("job=api",), "needs the package fastapi"),
    "a_key_is_not_empty": (("job=api", "serve.api_key='two words'"), "is empty, or holds what no header can"),
    "a_root_path_begins_with_a_slash": (("job=api", "serve.root_path=llm"), "must begin with /"),
    "lengths_are_weighed_among_beams": (("job=api", "generation.length_penalty=2"), "it compares beams"),
    "only_text_is_talked_with": (("job=chat", "stage=rm"), "gives scores and no text"),
    "each_answer_has_its_seed": (("job=api", "training.seed=1"), "give the seed in the request"),
    "beams_of_an_evaluation": (("job=api", "generation.eval_num_beams=2"), "set generation.num_beams=2"),
    "vllm_does_it": (("job=api", "model.infer_backend=vllm", "model.use_cache=false"), "contradicts"),
    "the_head_was_trained": (("job=predict", "stage=rm"), "is of a model that gives scores"),
    "the_rows_hold_prompts": (("job=predict", "data.dataset={here}/texts.jsonl"), "{here}/texts.jsonl"),
    "a_task_is_named": (("job=evaluate", "evaluation.task=mlu_test"), "did you mean 'mmlu_test'"),
    "answers_are_text": (("job=evaluate", "stage=rm", "evaluation.task=mmlu_test"), "a model that gives scores"),
    "lm_eval_has_its_own_prompts": (
        ("job=evaluate", "evaluation.task=lm_eval:arc", "evaluation.download_mode=force_redownload"),
        "brings its own prompts and data",
    ),
    "lm_eval_is_installed": (("job=evaluate", "evaluation.task=lm_eval:arc"), "needs the package lm_eval"),
    "the_questions_are_there": (("job=evaluate", "evaluation.task=mmlu_test"), "there is no such folder"),
    "the_results_have_a_place": (("job=evaluate", "evaluation.save_dir={here}"), "name a new folder"),
    "the_export_has_a_place": (("job=export",), "no folder is named"),
    "nothing_is_overwritten": (("job=export", "export.export_dir={here}"), "holds files already"),
    "adapters_are_merged_into_whole_weights": (("job=export", OUT, "quantization=bnb4"), "set quantization=none"),
    "the_base_is_whole": (
        ("job=export", OUT, "model=path", "model.model_name_or_path={here}/quantized"), "is quantized with"
    ),
    "plain_transformers_loads_it": (("job=export", OUT, "model.mixture_of_depths=load"), "has routers"),
    "one_word_places_the_export": (("job=export", OUT, "model.device_map=cpu"), "places the model"),
    "gptq_has_what_it_needs": (GPTQ, "needs calibration data"),
    "gptqmodel_is_installed": (GPTQ, "needs the package gptqmodel"),
    "the_hub_takes_the_name": (("job=export", OUT, "export.export_hub_model_id=a"), "write it as owner/name"),
    "gradio_is_installed": (("job=webui",), "needs the package gradio"),
    "others_need_a_password": (("job=webui", "serve.gradio_share=true"), "set GRADIO_PASSWORD"),
    "the_address_is_of_the_right_kind": (("job=webui", "serve.gradio_server_name=::1"), "set serve.gradio_ipv6=true"),
    "the_root_path_is_one": (("job=webui", "serve.gradio_root_path=x"), "such as /x"),
    "the_allowed_folders_are_there": (("job=webui", "serve.gradio_allowed_paths={here}/gone"), "no such folder"),
    "the_port_is_free": (("job=webui", "serve.gradio_server_port={port}"), "is in use"),
}  # fmt: skip
EXTRAS = ("vllm", "fastapi", "lm_eval", "gptqmodel", "gradio")


def rules() -> dict[str, refusals.Rule]:
    """The rules that hold for no training, by name."""
    return {rule.check.__name__: rule for rule in RULES if not set(rule.jobs) & set(TRAINING_JOBS)}


def test_every_rule_of_these_jobs_has_its_case() -> None:
    assert rules().keys() == CASES.keys()


@pytest.mark.parametrize("name", CASES)
def test_a_rule_refuses_what_it_should(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "texts.jsonl").write_text(json.dumps({"text": "without a question"}) + "\n")
    (tmp_path / "quantized").mkdir()
    (tmp_path / "quantized/config.json").write_text('{"quantization_config": {"quant_method": "gptq"}}')
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda one, *more: None if one in EXTRAS else find(one, *more)
    )
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        names = {"here": str(tmp_path), "port": str(other.getsockname()[1])}
        words, told = ([one.format_map(names) for one in CASES[name][0]], CASES[name][1].format_map(names))
        cfg = compose.typed(compose.composed(["model=tiny", *words]))
        rule = rules()[name]
        found = list(rule.check(cfg))
    assert cfg.job.name in rule.jobs
    assert any(told in str(problem) for problem in found), found
