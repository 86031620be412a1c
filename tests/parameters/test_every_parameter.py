"""No parameter of these groups is without a test whose outcome differs with its value."""

import re
from importlib import import_module
from pathlib import Path

from support.parameter_runs import TESTED

from llmf_hydra.config.schema import entries

GROUPS = ("job", "launch", "method", "model", "optimizer", "quantization", "training", "evaluation", "export")
TESTS = Path(__file__).resolve().parents[1]
# Tested where what they do is tested.
ELSEWHERE = {
    "method.freeze_trainable_layers": "methods/test_freeze.py",
    "method.freeze_trainable_modules": "methods/test_freeze.py",
    "method.freeze_extra_modules": "methods/test_freeze.py",
    "method.loraplus_lr_ratio": "methods/test_loraplus.py",
    "method.loraplus_lr_embedding": "methods/test_loraplus.py",
    "method.pissa_init": "methods/test_pissa.py",
    "method.pissa_iter": "methods/test_pissa.py",
    "method.pissa_convert": "methods/test_pissa.py",
    "method.use_llama_pro": "methods/test_llama_pro.py",
    "method.oft_rank": "methods/test_oft.py",
    "method.oft_block_size": "methods/test_oft.py",
    "method.oft_target": "methods/test_oft.py",
    "method.module_dropout": "methods/test_oft.py",
    "method.freeze_vision_tower": "methods/test_vision.py",
    "method.freeze_multi_modal_projector": "methods/test_vision.py",
    "method.train_mm_proj_only": "methods/test_vision.py",
    "model.adapter_folder": "methods/test_oft.py",
    "job.from_run": "serve/test_from_run.py",
    "model.infer_backend": "serve/test_rules.py",
    "model.infer_dtype": "serve/test_from_run.py",
    "model.use_cache": "serve/test_from_run.py",
    "launch.optim_torch": "runs/test_device_settings.py",
    "launch.ascend_rt_visible_devices": "runs/test_device_settings.py",
    "launch.npu_jit_compile": "runs/test_device_settings.py",
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
    "optimizer.galore_target": "optimizers/test_galore.py",
    "optimizer.galore_rank": "optimizers/test_galore.py",
    "optimizer.galore_update_interval": "optimizers/test_galore.py",
    "optimizer.galore_scale": "optimizers/test_galore.py",
    "optimizer.galore_proj_type": "optimizers/test_galore.py",
    "optimizer.galore_layerwise": "optimizers/test_galore.py",
    "optimizer.apollo_target": "optimizers/test_apollo.py",
    "optimizer.apollo_rank": "optimizers/test_apollo.py",
    "optimizer.apollo_update_interval": "optimizers/test_apollo.py",
    "optimizer.apollo_scale": "optimizers/test_apollo.py",
    "optimizer.apollo_proj": "optimizers/test_apollo.py",
    "optimizer.apollo_proj_type": "optimizers/test_apollo.py",
    "optimizer.apollo_scale_type": "optimizers/test_apollo.py",
    "optimizer.apollo_layerwise": "optimizers/test_apollo.py",
    "optimizer.apollo_scale_front": "optimizers/test_apollo.py",
    "optimizer.badam_mode": "optimizers/test_badam.py",
    "optimizer.badam_start_block": "optimizers/test_badam.py",
    "optimizer.badam_switch_mode": "optimizers/test_badam.py",
    "optimizer.badam_switch_interval": "optimizers/test_badam.py",
    "optimizer.badam_update_ratio": "optimizers/test_badam.py",
    "optimizer.badam_mask_mode": "optimizers/test_badam.py",
    "optimizer.badam_verbose": "optimizers/test_badam.py",
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
    "evaluation.task": "jobs/test_evaluate.py",
    "evaluation.task_dir": "jobs/test_evaluate.py",
    "evaluation.batch_size": "jobs/test_evaluate.py",
    "evaluation.seed": "jobs/test_evaluate.py",
    "evaluation.lang": "jobs/test_evaluate.py",
    "evaluation.n_shot": "jobs/test_evaluate.py",
    "evaluation.save_dir": "jobs/test_evaluate.py",
    "evaluation.download_mode": "jobs/test_evaluate.py",
    "export.export_dir": "jobs/test_export.py",
    "export.export_size": "jobs/test_export.py",
    "export.export_device": "jobs/test_export.py",
    "export.export_quantization_bit": "jobs/test_export.py",
    "export.export_quantization_dataset": "jobs/test_export.py",
    "export.export_quantization_nsamples": "jobs/test_export.py",
    "export.export_quantization_maxlen": "jobs/test_export.py",
    "export.export_legacy_format": "jobs/test_export.py",
    "export.export_hub_model_id": "jobs/test_export.py",
    "export.overwrite": "jobs/test_export.py",
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
