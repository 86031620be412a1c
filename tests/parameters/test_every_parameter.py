"""No parameter of these groups is without a test whose outcome differs with its value."""

import re
from importlib import import_module
from pathlib import Path

from support.parameter_runs import TESTED

from llmf_hydra.config.schema import entries

GROUPS = ("job", "launch", "method", "model", "optimizer", "quantization", "training")
TESTS = Path(__file__).resolve().parents[1]
# Tested where what they do is tested.
ELSEWHERE = {
    "method.freeze_trainable_layers": "methods/test_freeze.py",
    "method.freeze_trainable_modules": "methods/test_freeze.py",
    "method.freeze_extra_modules": "methods/test_freeze.py",
    "launch.nproc_per_node": "runs/test_processes.py",
    "launch.use_ray": "checks/test_launch_rules.py",
    "launch.ray_address": "runs/test_remote_workers.py",
    "launch.ray_num_cpus": "runs/test_remote_workers.py",
    "launch.ray_num_gpus": "checks/test_launch_rules.py",
    "launch.use_slurm": "checks/test_launch_rules.py",
    "launch.slurm_cluster": "runs/test_remote_workers.py",
    "launch.slurm_partition": "runs/test_slurm_commands.py",
    "launch.slurm_time": "runs/test_slurm_commands.py",
    "launch.slurm_gpus": "runs/test_slurm_commands.py",
    "launch.slurm_cpus": "runs/test_slurm_commands.py",
    "launch.slurm_mem_gb": "runs/test_slurm_commands.py",
    "method.create_new_adapter": "training/test_given_adapters.py",
    "model.adapter_name_or_path": "training/test_given_adapters.py",
    "model.use_fast_tokenizer": "models/test_vocabulary.py",
    "model.resize_vocab": "models/test_vocabulary.py",
    "model.new_special_tokens": "models/test_vocabulary.py",
    "model.ms_hub_token": "models/test_hubs.py",
    "model.om_hub_token": "models/test_hubs.py",
    "model.use_modelscope_hub": "models/test_hubs.py",
    "model.use_openmind_hub": "models/test_hubs.py",
    "quantization.quantization_device_map": "models/test_quantized.py",
    "training.early_stopping_patience": "training/test_trainer.py",
    "training.load_best_model_at_end": "training/test_trainer.py",
    "training.metric_for_best_model": "training/test_trainer.py",
    "training.greater_is_better": "training/test_trainer.py",
    "training.predict_with_generate": "stages/test_sft.py",
}


def test_every_built_parameter_has_its_test() -> None:
    for file in Path(__file__).parent.glob("test_*.py"):
        import_module(f"parameters.{file.stem}")  # its cases and decorators say what it tests
    built = {key for key, entry in entries().items() if entry.group in GROUPS and not entry.param.planned}
    assert built - TESTED - set(ELSEWHERE) == set(), "without a test"
    assert TESTED - set(entries()) == set(), "tested and not declared"
    assert TESTED & set(ELSEWHERE) == set(), "tested here after all"


def test_the_other_tests_name_their_parameters() -> None:
    for key, file in ELSEWHERE.items():
        assert re.search(rf"\b{key.partition('.')[2]}\b", (TESTS / file).read_text(encoding="utf8")), key
