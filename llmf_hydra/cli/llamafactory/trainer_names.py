"""Names beside the 206 rows that a flat LLaMA-Factory YAML may hold, and what becomes of each here.

Most are arguments of Transformers' Trainer. Those that have a parameter of the same name in `training` or
`optimizer` are carried by that name and need no line.
"""

from dataclasses import dataclass

from llmf_hydra.config.schema import entries

_OFF = (None, False, 0, "", "none", "no", "false", [], {})  # values with which a missing name changes nothing


@dataclass(frozen=True)
class Fate:
    """What became of a name: it lives at a key, a function translates it, it has no meaning here, or it is missing."""

    key: str = ""
    why: str = ""
    translated: bool = False
    missing: bool = False  # the result is another one without it, unless its value is one of `neutral`
    neutral: tuple[object, ...] = _OFF

    @property
    def gone(self) -> bool:
        return not (self.key or self.translated)

    def changes_result(self, raw: object) -> bool:
        """Whether a value of the name has an effect that nothing here has."""
        return self.missing and raw not in self.neutral

    def __str__(self) -> str:
        return (
            f"{self.key} here"
            if self.key
            else self.why
            if self.translated
            else f"has no parameter here: {self.why}"
        )


RENAMED = {
    "run_name": "tracking.run_name",
    "project": "tracking.project",
    "full_determinism": "training.deterministic",
    "early_stopping_steps": "training.early_stopping_patience",
    "evaluation_strategy": "training.eval_strategy",
    "per_gpu_train_batch_size": "training.per_device_train_batch_size",
    "per_gpu_eval_batch_size": "training.per_device_eval_batch_size",
    "use_liger_kernel": "model.enable_liger_kernel",
    "use_kv_cache": "model.use_cache",
    "add_special_tokens": "model.new_special_tokens",
}

TRANSLATED = {
    "do_train": "do_train: true is job=train",
    "do_predict": "do_predict: true is job=predict, a run of its own",
    "optim": "optim: adafactor is optimizer=adafactor, galore_adamw is optimizer=galore, and so on",
    "use_muon": "use_muon: true is optimizer=muon",
    "report_to": "report_to: wandb is tracking=wandb",
    "gradient_checkpointing": "the opposite of model.disable_gradient_checkpointing",
}

# Without meaning here: the result is the same without the name. Why, or what to do instead, and the names.
_IDLE = {
    "each run gets a folder of its own; hydra.run.dir=DIR chooses it": "output_dir overwrite_output_dir",
    "logs lie in the run's folder; tracking=wandb or tracking=mlflow add a tracker": """
        logging_dir use_swanlab swanlab_project swanlab_workspace swanlab_run_name swanlab_mode
        swanlab_api_key swanlab_logdir swanlab_lark_webhook_url swanlab_lark_secret trackio_space_id
        trackio_bucket_id trackio_static_space_id""",
    "training.eval_strategy with data.val_size or data.eval_dataset decides what is evaluated": """
        do_eval eval_on_start eval_delay eval_accumulation_steps prediction_loss_only include_for_metrics
        include_inputs_for_metrics batch_eval_metrics eval_do_concat_batches eval_use_gather_object""",
    "job=predict always generates, as the group generation says": """
        generation_max_length generation_num_beams generation_config""",
    "training.logging_steps and training.logging_first_step decide what is logged": """
        logging_strategy logging_nan_inf_filter log_on_each_node include_num_input_tokens_seen
        include_tokens_per_second skip_memory_metrics disable_tqdm debug""",
    "launch.verbosity is the level of the log": "log_level log_level_replica",
    "processes and devices are decided by the group launch": """
        ddp_timeout ddp_backend ddp_bucket_cap_mb ddp_find_unused_parameters ddp_broadcast_buffers
        ddp_static_graph local_rank save_on_each_node ray_run_name ray_num_workers ray_storage_path
        ray_storage_filesystem resources_per_worker placement_strategy ray_init_kwargs""",
    "the CPU is taken where no GPU is seen; launch.cuda_visible_devices='' hides GPUs": "use_cpu no_cuda",
    "precision is chosen by training.bf16, training.pure_bf16 and model.compute_dtype": """
        half_precision_backend fp16_opt_level fp16_backend""",
    "model.disable_gradient_checkpointing and model.use_reentrant_gc decide": """
        gradient_checkpointing_kwargs activation_checkpointing activation_checkpointing_kwargs""",
    "models are not compiled": "torch_compile torch_compile_backend torch_compile_mode",
    "kernels are chosen by model.flash_attn and model.enable_liger_kernel": "use_v1_kernels liger_kernel_config",
    "a checkpoint holds all that `llmf resume` needs": """
        save_only_model save_safetensors ignore_data_skip restore_callback_states_from_checkpoint
        enable_jit_checkpoint""",
    "nothing is pushed to a hub while training; job=export does that": """
        push_to_hub hub_model_id hub_token hub_private_repo hub_strategy hub_always_push hub_revision""",
    "how batches are loaded is decided by data.packing and training.dataloader_num_workers": """
        dataloader_pin_memory dataloader_persistent_workers dataloader_prefetch_factor
        dataloader_multiprocessing_context dataloader_in_order remove_unused_columns label_names""",
    "model.infer_backend chooses the engine, which has no settings of its own": """
        vllm_maxlen vllm_gpu_util vllm_enforce_eager vllm_max_lora_rank vllm_config sglang_maxlen
        sglang_mem_fraction sglang_tp_size sglang_config sglang_lora_backend chunk_size cpu_infer kt_maxlen
        kt_optimize_rule mode""",
    "memory is not emptied between steps": "torch_empty_cache_steps",
}

OFT = (
    "module_dropout",
    "oft_rank",
    "oft_block_size",
    "oft_target",
)  # names of theirs beside the specification

# Not here, and the result is another one without it. Why, or what comes nearest, and the names.
_MISSING = {
    "training.lr_scheduler_type alone decides the schedule": "lr_scheduler_kwargs",
    "the optimizers' own settings are in --help optimizer": "optim_args optim_target_modules",
    "launch.nproc_per_node trains with several processes (DDP), each with the whole model": """
        deepspeed fsdp fsdp_config accelerator_config parallelism_config use_mca use_hyper_parallel
        average_tokens_across_devices""",
    "precision is chosen by training.bf16, training.pure_bf16 and model.compute_dtype": """
        tf32 bf16_full_eval fp16_full_eval fp8 fp8_backend fp8_enable_fsdp_float8_all_gather""",
    "rows are shuffled, or with training.disable_shuffling in their order; the batch size is as given": """
        group_by_length length_column_name train_sampling_strategy auto_find_batch_size dataloader_drop_last""",
    "new tokens are named by model.new_special_tokens": """
        add_tokens new_special_tokens_config init_special_tokens freeze_original_embeddings""",
    "there is no such loss": """
        label_smoothing_factor pref_bco_weight ld_alpha use_dft_loss use_eaft_loss eaft_alpha use_asft_loss
        asft_alpha""",
    "only text is trained on": """
        freeze_language_model image_do_pan_and_scan crop_to_patches use_audio_in_video audio_sampling_rate""",
    "a template's thoughts are written as they stand in the data": "enable_thinking",
    "there is no such engine": "use_kt",
}
_NEUTRAL = {  # the same for names whose default is not off
    "enable_thinking": (None, True),
    "average_tokens_across_devices": (None, True),
    "audio_sampling_rate": (None, 16000),
    "length_column_name": (None, "length"),
    "train_sampling_strategy": (None, "random"),
    "fp8_backend": (None, "auto"),
    "fp8_enable_fsdp_float8_all_gather": (None, False),
    "init_special_tokens": (None, "noise_init"),
}


TRAINER_NAMES: dict[str, Fate] = {
    **{
        entry.name: Fate(entry.key)
        for entry in entries().values()
        if entry.group in ("training", "optimizer")
    },
    **{name: Fate(key) for name, key in RENAMED.items()},
    **{name: Fate(f"method.{name}") for name in OFT},
    **{name: Fate(why=why, translated=True) for name, why in TRANSLATED.items()},
    **{name: Fate(why=why) for why, names in _IDLE.items() for name in names.split()},
    **{
        name: Fate(why=why, missing=True, neutral=_NEUTRAL.get(name, _OFF))
        for why, names in _MISSING.items()
        for name in names.split()
    },
}
del TRAINER_NAMES["name"]  # `optimizer.name` is a choice of ours, not a name of theirs

# What a flat file leaves unsaid where our own defaults or presets differ; an import writes it out.
THEIR_DEFAULTS = {
    "training.learning_rate": 5e-5,
    "training.num_train_epochs": 3.0,
    "training.lr_scheduler_type": "linear",
    "training.warmup_ratio": 0.0,
    "training.per_device_train_batch_size": 8,
    "training.logging_steps": 500,
}

# A layerwise optimizer of theirs frees gradients before they could be clipped, whatever the norm.
LAYERWISE = ("optimizer.galore_layerwise", "optimizer.apollo_layerwise")
UNCLIPPED = {"training.max_grad_norm": 0.0}
