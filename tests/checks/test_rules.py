"""Each rule red and green: changes of a sound config that it refuses, and near ones that it lets pass."""

import pytest
from support.method_rule_cases import METHOD_CASES
from support.model_rule_cases import MODEL_CASES
from support.stage_rule_cases import STAGE_CASES

from llmf_hydra import refusals
from llmf_hydra.checks.register import CONFIG, RULES
from llmf_hydra.config.choices import TRAINING_JOBS
from llmf_hydra.config.schema import Config

Changes = dict[str, object]
GALORE: Changes = {"optimizer.name": "galore", "method.name": "full"}
APOLLO: Changes = {"optimizer.name": "apollo", "method.name": "full"}
BADAM: Changes = {"optimizer.name": "badam", "method.name": "full"}
UNCLIPPED: Changes = {"training.max_grad_norm": 0.0}
# rule -> (changes it refuses, changes it lets pass)
CASES: dict[str, tuple[list[Changes], list[Changes]]] = {
    "one_warmup": (
        [{"training.warmup_steps": 5, "training.warmup_ratio": 0.1}],
        [{"training.warmup_steps": 5}, {"training.warmup_ratio": 0.1}],
    ),
    "evaluation_needs_rows": (
        [{"training.eval_strategy": "steps"}],
        [{"training.eval_strategy": "steps", "data.val_size": 0.1},
         {"training.eval_strategy": "epoch", "data.eval_dataset": "b"}],
    ),
    "one_source_of_evaluation": (
        [{"training.eval_strategy": "steps", "data.val_size": 0.1, "data.eval_dataset": "b"}],
        [{"training.eval_strategy": "steps", "data.eval_dataset": "b"}],
    ),
    "held_out_share": (
        [{"training.eval_strategy": "steps", "data.val_size": 1.5}],
        [{"training.eval_strategy": "steps", "data.val_size": 0.5},
         {"training.eval_strategy": "steps", "data.val_size": 20.0}],
    ),
    "a_stream_has_one_reader": (
        [{"data.streaming": True, "training.max_steps": 5, "launch.nproc_per_node": 2}],
        [{"launch.nproc_per_node": 2}, {"data.streaming": True, "training.max_steps": 5}],
    ),
    "one_scheduler_runs_the_workers": (
        [{"launch.use_ray": True, "launch.use_slurm": True}],
        [{"launch.use_ray": True}, {"launch.use_slurm": True}],
    ),
    "the_scheduler_names_the_gpus": (
        [{"launch.use_ray": True, "launch.ray_num_gpus": 1.0, "launch.cuda_visible_devices": "0"},
         {"launch.use_slurm": True, "launch.slurm_gpus": 1, "launch.cuda_visible_devices": "0"}],
        [{"launch.use_ray": True, "launch.ray_num_gpus": 1.0}],
    ),
    "a_model_is_named": ([{"model.model_name_or_path": None}], [{"model.model_name_or_path": "builtin:tiny"}]),
    "a_dataset_is_named": ([{"data.dataset": None}], [{"data.dataset": "b"}]),
    "one_precision": (
        [{"training.pure_bf16": True, "model.compute_dtype": "float32"},
         {"training.pure_bf16": True, "training.bf16": True},
         {"training.bf16": True, "model.compute_dtype": "bfloat16"}],
        [{"training.pure_bf16": True}, {"training.bf16": True}, {"model.compute_dtype": "bfloat16"}],
    ),
    "the_library_has_these_bits": (
        [{"quantization.quantization_bit": 3}, {"quantization.quantization_bit": 5},
         {"quantization.quantization_bit": 4, "quantization.quantization_method": "eetq"},
         {"quantization.quantization_bit": 2, "quantization.quantization_method": "bnb"}],
        [{"quantization.quantization_bit": 8},
         {"quantization.quantization_bit": 3, "quantization.quantization_method": "hqq"}],
    ),
    "quantized_weights_carry_adapters": (
        [{"quantization.quantization_bit": 4, "method.name": "full"},
         {"quantization.quantization_bit": 4, "method.name": "freeze"}],
        [{"quantization.quantization_bit": 4}, {"method.name": "full"}],
    ),
    "training_places_the_model": (
        [{"quantization.quantization_bit": 4, "quantization.quantization_device_map": "auto"}],
        [{"quantization.quantization_bit": 4}],
    ),
    "one_hub_is_asked": (
        [{"model.use_modelscope_hub": True, "model.use_openmind_hub": True}],
        [{"model.use_modelscope_hub": True}, {"model.use_openmind_hub": True}],
    ),
    "new_tokens_are_named": (
        [{"model.new_special_tokens": "<a>,,<b>"}, {"model.new_special_tokens": "<a>,<a>"}],
        [{"model.new_special_tokens": "<a>, <b>"}],
    ),
    "lora_has_effect": ([{"method.lora_alpha": 0}], [{"method.lora_alpha": 1}, {"method.lora_rank": 1}]),
    "targets_are_named": (
        [{"method.lora_target": "q_proj,,v_proj"}, {"method.additional_target": "a,a"},
         {"method.lora_target": "(q_proj"}, {"method.name": "oft", "method.oft_target": "*q_proj"}],
        [{"method.lora_target": "q_proj, v_proj"}, {"method.additional_target": "embed_tokens"},
         {"method.lora_target": r".*layers\.[01]\..*q_proj, v_proj"}],
    ),
    "the_objective_is_a_metric": (
        [{"tracking.objective": "1"}, {"tracking.objective": ""}],
        [{"tracking.objective": "eval_loss"}, {"tracking.objective": "rewards/margins"}],
    ),
    "own_files_are_written": ([{"tracking.files": False}], [{"tracking.mlflow": True}]),
    "a_tracker_takes_the_model": (
        [{"tracking.log_model": True}, {"tracking.log_model": True, "tracking.tensorboard": True}],
        [{"tracking.log_model": True, "tracking.mlflow": True},
         {"tracking.log_model": True, "tracking.wandb": True}],
    ),
    "trained_weights_need_range": (
        [{"model.compute_dtype": "float16", "method.name": "full"}],
        [{"model.compute_dtype": "float16"}, {"model.compute_dtype": "bfloat16", "method.name": "full"}],
    ),
    "polynomial_has_room_to_fall": (
        [{"training.lr_scheduler_type": "polynomial", "training.learning_rate": 1e-7}],
        [{"training.lr_scheduler_type": "polynomial"}, {"training.learning_rate": 1e-7}],
    ),
    "a_stream_has_no_epochs": (
        [{"data.streaming": True}],
        [{"data.streaming": True, "training.max_steps": 10}],
    ),
    "held_out_leaves_rows": (
        [{"training.eval_strategy": "steps", "data.val_size": 20.0, "data.max_samples": 20}],
        [{"training.eval_strategy": "steps", "data.val_size": 20.0, "data.max_samples": 21}],
    ),
    "the_template_is_one_of_ours": (
        [{"data.template": "chatmll"}, {"data.tool_format": "nonsense"}],
        [{"data.template": "chatml"}, {"data.tool_format": "qwen"}],
    ),
    "each_dataset_is_named_once": (
        [{"data.dataset": "a,b,a"}, {"training.eval_strategy": "steps", "data.eval_dataset": "b,b"}],
        [{"data.dataset": "a,b"}],
    ),
    "history_or_prompt": (
        [{"data.train_on_prompt": True, "data.mask_history": True}],
        [{"data.train_on_prompt": True}, {"data.mask_history": True}],
    ),
    "only_sequences_are_packed": (
        [{"data.neat_packing": True, "data.packing": False}, {"data.packing": True, "stage.name": "dpo"},
         {"data.neat_packing": True, "stage.name": "rm"}],
        [{"data.neat_packing": True}, {"data.packing": False, "stage.name": "dpo"}],
    ),
    "shares_fit_the_datasets": (
        [{"data.interleave_probs": "a", "data.mix_strategy": "interleave_under"},
         {"data.interleave_probs": "0.5,0.5", "data.mix_strategy": "interleave_under"},
         {"data.interleave_probs": "0.9", "data.mix_strategy": "interleave_over"}],
        [{"data.interleave_probs": "0.5,0.5", "data.mix_strategy": "interleave_under", "data.dataset": "a,b"}],
    ),
    "whole_weights_are_trained": (
        [{"optimizer.name": name} for name in ("galore", "apollo", "badam")],
        [{"optimizer.name": "galore", "method.name": "full"}, {"optimizer.name": "badam", "method.name": "freeze"},
         {"optimizer.name": "adam_mini"}, {"optimizer.name": "muon"}],
    ),
    "projected_layers_are_named": (
        [{**GALORE, "optimizer.galore_target": "q_proj,,mlp"}, {**APOLLO, "optimizer.apollo_target": "mlp,mlp"}],
        [{**GALORE, "optimizer.galore_target": "q_proj, mlp"}, {**APOLLO, "optimizer.apollo_target": "mlp"}],
    ),
    "layerwise_holds_no_whole_gradient": (
        [{**GALORE, "optimizer.galore_layerwise": True},
         {**APOLLO, "optimizer.apollo_layerwise": True, **UNCLIPPED, "training.gradient_accumulation_steps": 2},
         {**GALORE, "optimizer.galore_layerwise": True, **UNCLIPPED, "launch.nproc_per_node": 2}],
        [{**GALORE, "optimizer.galore_layerwise": True, **UNCLIPPED},
         {**APOLLO, "optimizer.apollo_layerwise": True, **UNCLIPPED},
         {**GALORE, "training.gradient_accumulation_steps": 2, "launch.nproc_per_node": 2}],
    ),
    "blocks_take_turns_in_one_process": (
        [{**BADAM, "launch.nproc_per_node": 2}],
        [{**BADAM, "optimizer.badam_mode": "ratio", "launch.nproc_per_node": 2}, BADAM],
    ),
    "blocks_are_hidden_layers": (
        [{**BADAM, "method.name": "freeze", "method.freeze_extra_modules": "embed_tokens"},
         {**BADAM, "model.train_from_scratch": True}, {**BADAM, "model.new_special_tokens": "<a>"}],
        [{**BADAM, "method.name": "freeze"},
         {**BADAM, "optimizer.badam_mode": "ratio", "model.new_special_tokens": "<a>"},
         {**BADAM, "optimizer.badam_mode": "ratio", "method.name": "freeze",
          "method.freeze_extra_modules": "embed_tokens"}],
    ),
    "blocks_are_switched": (
        [{**BADAM, "optimizer.badam_switch_interval": 0},
         {**BADAM, "optimizer.badam_switch_interval": 7, "optimizer.badam_switch_mode": "fixed"},
         {**BADAM, "optimizer.badam_switch_interval": 7, "optimizer.badam_switch_mode": None}],
        [{**BADAM, "optimizer.badam_switch_interval": 1}, {**BADAM, "optimizer.badam_switch_interval": -1},
         {**BADAM, "optimizer.badam_switch_mode": "fixed"},
         {**BADAM, "optimizer.badam_mode": "ratio", "optimizer.badam_switch_interval": 7}],
    ),
    "a_run_is_used_by_inference": ([{"job.from_run": "outputs/a"}], [{}]),
    "answers_have_an_end": ([{"data.template": "fewshot"}], [{"data.template": "chatml"}]),
    **STAGE_CASES,
    **METHOD_CASES,
    **MODEL_CASES,
}  # fmt: skip


def config(changes: Changes) -> Config:
    cfg = Config()
    cfg.model.model_name_or_path, cfg.data.dataset = "builtin:tiny", "a"
    for group in (
        "launch",
        "serve",
        "tracking",
        "model",
    ):  # values that the environment gives, at their defaults
        owner = getattr(cfg, group)
        for name, of in type(owner).__dataclass_fields__.items():
            if of.metadata["param"].env is not None:
                setattr(owner, name, of.metadata["param"].default)
    for key, value in changes.items():
        group, name = key.split(".")
        setattr(getattr(cfg, group), name, value)
    return cfg


def test_every_rule_has_its_cases() -> None:
    """Those of other jobs than training have theirs in a command line: tests of serve, webui, evaluation, export."""
    trained = [rule for rule in RULES if rule.phase == CONFIG and set(rule.jobs) & set(TRAINING_JOBS)]
    assert {rule.check.__name__ for rule in trained} == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_a_rule_refuses_what_it_should(name: str) -> None:
    (rule,) = [rule for rule in RULES if rule.check.__name__ == name]
    for changes in CASES[name][0]:
        cfg = config(changes)
        found = list(rule.check(cfg))
        assert found, changes
        assert all({problem.key, f"job.{problem.key}"} & set(rule.keys) for problem in found)
        assert {str(problem) for problem in found} <= {
            str(problem) for problem in refusals.problems(cfg, {}, [CONFIG])
        }


@pytest.mark.parametrize("name", CASES)
def test_a_rule_lets_the_sound_neighbour_pass(name: str) -> None:
    for changes in CASES[name][1]:
        assert refusals.problems(config(changes), {}, [CONFIG]) == [], changes
