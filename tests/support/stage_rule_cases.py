"""Cases of the rules of the stages: changes that a rule refuses, and near ones that it lets pass."""

Changes = dict[str, object]

DPO, KTO, SFT = {"stage.name": "dpo"}, {"stage.name": "kto"}, {"stage.name": "sft"}
FREEZE = {"method.name": "freeze"}
PPO = {"stage.name": "ppo"}
REWARDED = {**PPO, "rlhf.reward_model": "a", "rlhf.reward_model_type": "full"}
EVALUATED = {
    "training.eval_strategy": "steps",
    "data.val_size": 0.1,
    "training.eval_steps": 10,
    "training.save_steps": 20,
}
BEST = {**EVALUATED, "training.load_best_model_at_end": True}

GRPO = {"stage.name": "grpo", "rlhf.rewards": ["exact_match"], "training.per_device_train_batch_size": 8}

STAGE_CASES: dict[str, tuple[list[Changes], list[Changes]]] = {
    "rewards_are_well_written": (
        [
            {**GRPO, "rlhf.rewards": ["exact"]},
            {**GRPO, "rlhf.rewards": ["math", "math"]},
            {**PPO, "rlhf.rewards": "regex"},
        ],
        [
            GRPO,
            {**GRPO, "rlhf.rewards": ["math", {"kind": "math", "column": "b"}]},
            {**PPO, "rlhf.rewards": "regex:a"},
        ],
    ),
    "grpo_has_a_reward": (
        [{**GRPO, "rlhf.rewards": None}, {**GRPO, "rlhf.rewards": []}],
        [GRPO, {**GRPO, "rlhf.rewards": "numeric"}, DPO],
    ),
    "ppo_is_rewarded_by_one_of_both": (
        [{**REWARDED, "rlhf.rewards": ["numeric"]}],
        [REWARDED, {**PPO, "rlhf.rewards": ["numeric"]}],
    ),
    "groups_fill_a_generation": (
        [{**GRPO, "rlhf.num_generations": 3}, {**GRPO, "rlhf.num_generations": 16}],
        [
            GRPO,
            {**GRPO, "rlhf.num_generations": 16, "training.gradient_accumulation_steps": 2},
            {**GRPO, "rlhf.num_generations": 3, "rlhf.steps_per_generation": 3},
        ],
    ),
    "groups_fill_an_evaluation_batch": (
        [
            {**GRPO, **EVALUATED, "training.per_device_eval_batch_size": 4},
            {**GRPO, **EVALUATED, "rlhf.num_generations_eval": 3},
        ],
        [
            {**GRPO, **EVALUATED},
            {**GRPO, "training.per_device_eval_batch_size": 4},
            {**GRPO, **EVALUATED, "rlhf.num_generations_eval": 4},
        ],
    ),
    "held_out_prompts_are_one_set": (
        [{**GRPO, **EVALUATED, "data.eval_on_each_dataset": True}],
        [{**GRPO, **EVALUATED}, {**DPO, **EVALUATED, "data.eval_on_each_dataset": True}],
    ),
    "rewards_are_better_the_greater": (
        [{**GRPO, "tracking.objective": name} for name in ("reward", "eval_reward", "eval_pass_at_k")],
        [
            {**GRPO, "tracking.objective": "eval_reward", "tracking.direction": "maximize"},
            {**GRPO, "tracking.objective": "eval_loss"},
        ],
    ),
    "groups_are_sampled": (
        [{**GRPO, "generation.do_sample": False}, {**GRPO, "generation.max_new_tokens": 0}],
        [GRPO, {**REWARDED, "generation.do_sample": False}],
    ),
    "beta_needs_the_reference": (
        [{**GRPO, "rlhf.ref_model": "a"}, {**GRPO, "rlhf.ref_model_quantization_bit": 8}],
        [GRPO, {**GRPO, "rlhf.ref_model": "a", "rlhf.beta": 0.1}],
    ),
    "aggregation_has_several_rewards": (
        [
            {**GRPO, "rlhf.multi_objective_aggregation": "normalize_then_sum"},
            {
                **GRPO,
                "rlhf.multi_objective_aggregation": "normalize_then_sum",
                "rlhf.rewards": ["math", "numeric"],
                "rlhf.scale_rewards": "none",
            },
        ],
        [
            GRPO,
            {
                **GRPO,
                "rlhf.multi_objective_aggregation": "normalize_then_sum",
                "rlhf.rewards": ["math", "numeric"],
            },
        ],
    ),
    "the_correction_has_a_kl": (
        [{**GRPO, "rlhf.use_bias_correction_kl": False}],
        [{**GRPO, "rlhf.use_bias_correction_kl": False, "rlhf.beta": 0.1}],
    ),
    "cispo_has_its_bound": (
        [{**GRPO, "rlhf.loss_type": "cispo"}],
        [GRPO, {**GRPO, "rlhf.loss_type": "cispo", "rlhf.epsilon_high": 5.0}],
    ),
    "no_reference_where_none_is_used": (
        [
            {**DPO, "rlhf.pref_loss": "orpo", "rlhf.ref_model": "a"},
            {**DPO, "rlhf.pref_loss": "simpo", "rlhf.ref_model_adapters": "a"},
            {**DPO, "rlhf.pref_loss": "simpo", "rlhf.ref_model_quantization_bit": 8},
        ],
        [
            {**DPO, "rlhf.ref_model": "a"},
            {**DPO, "rlhf.pref_loss": "orpo"},
            {**KTO, "training.per_device_train_batch_size": 2, "rlhf.ref_model": "a"},
        ],
    ),
    "reference_can_be_quantized": (
        [
            {**DPO, "rlhf.ref_model_quantization_bit": 5},
            {**DPO, "rlhf.ref_model_quantization_bit": 4, "rlhf.ref_model_adapters": "a,b"},
        ],
        [
            {**DPO, "rlhf.ref_model_quantization_bit": 4, "rlhf.ref_model_adapters": "a"},
            {**DPO, "rlhf.ref_model_quantization_bit": 8},
            {**DPO, "rlhf.ref_model_adapters": "a,b"},
        ],
    ),
    "kto_needs_two_rows": (
        [{**KTO, "training.per_device_train_batch_size": 1}],
        [
            {**KTO, "training.per_device_train_batch_size": 2},
            {**KTO, "training.per_device_train_batch_size": 1, "training.gradient_accumulation_steps": 2},
            {**DPO, "training.per_device_train_batch_size": 1},
        ],
    ),
    "kto_learns_from_something": (
        [
            {
                **KTO,
                "training.per_device_train_batch_size": 2,
                "rlhf.kto_chosen_weight": 0.0,
                "rlhf.kto_rejected_weight": 0.0,
            }
        ],
        [
            {**KTO, "training.per_device_train_batch_size": 2, "rlhf.kto_chosen_weight": 0.0},
            {**KTO, "training.per_device_train_batch_size": 2, "rlhf.kto_rejected_weight": 0.0},
        ],
    ),
    "freeze_trains_something": (
        [{**FREEZE, "method.freeze_trainable_layers": 0}],
        [
            {**FREEZE, "method.freeze_trainable_layers": 0, "method.freeze_extra_modules": "norm"},
            {**FREEZE, "method.freeze_trainable_layers": -1},
        ],
    ),
    "frozen_modules_are_named": (
        [
            {**FREEZE, "method.freeze_trainable_modules": "mlp,,norm"},
            {**FREEZE, "method.freeze_extra_modules": ""},
        ],
        [{**FREEZE, "method.freeze_trainable_modules": "mlp, self_attn"}],
    ),
    "head_takes_no_adapter": (
        [{**SFT, "method.lora_target": "q_proj,lm_head"}, {**DPO, "method.lora_target": "lm_head"}],
        [{**SFT, "method.lora_target": "q_proj"}, {**SFT, "method.additional_target": "lm_head"}],
    ),
    "best_model_is_saved": (
        [
            {**BEST, "training.save_strategy": "no"},
            {**BEST, "training.save_strategy": "epoch"},
            {**BEST, "training.save_steps": 15},
            {**BEST, "training.eval_steps": None, "training.logging_steps": 3},
        ],
        [
            BEST,
            {**EVALUATED, "training.save_steps": 15},
            {
                **BEST,
                "training.eval_steps": None,
                "training.eval_strategy": "epoch",
                "training.save_strategy": "epoch",
                "training.save_steps": 500,
            },
        ],
    ),
    "best_model_is_asked_for": (
        [
            {**EVALUATED, "training.metric_for_best_model": "eval_loss"},
            {**EVALUATED, "training.greater_is_better": True},
        ],
        [
            {**BEST, "training.metric_for_best_model": "eval_loss"},
            {**EVALUATED, "training.early_stopping_patience": 2, "training.greater_is_better": True},
        ],
    ),
    "generation_is_used": (
        [{**SFT, "generation.top_k": 3}, {**SFT, **EVALUATED, "generation.max_new_tokens": 5}],
        [
            {**SFT, **EVALUATED, "training.predict_with_generate": True, "generation.top_k": 3},
            {**SFT, "generation.default_system": "Be short."},
        ],
    ),
    "answers_are_apart": (
        [{**SFT, **EVALUATED, "training.predict_with_generate": True, "data.train_on_prompt": True}],
        [{**SFT, **EVALUATED, "training.predict_with_generate": True}, {**SFT, "data.train_on_prompt": True}],
    ),
    "best_metric_is_logged": (
        [
            {**BEST, "training.metric_for_best_model": "eval_accuracy"},
            {**BEST, "tracking.objective": "eval_los"},
            {**BEST, "data.eval_on_each_dataset": True},
            {**BEST, **DPO, "training.metric_for_best_model": "eval_margin"},
        ],
        [
            BEST,
            {
                **BEST,
                **SFT,
                "training.metric_for_best_model": "eval_accuracy",
                "training.compute_accuracy": True,
            },
            {**BEST, "data.eval_on_each_dataset": True, "training.metric_for_best_model": "eval_a_loss"},
            {**BEST, **DPO, "training.metric_for_best_model": "rewards/margins"},
        ],
    ),
    "adapters_are_named": (
        [
            {"model.adapter_name_or_path": "a,,b"},
            {**DPO, "rlhf.ref_model_adapters": "a,"},
            {**REWARDED, "rlhf.reward_model_adapters": " "},
        ],
        [{"model.adapter_name_or_path": "a, b"}],
    ),
    "new_adapter_is_put_on_others": (
        [{"method.create_new_adapter": True}],
        [{"method.create_new_adapter": True, "model.adapter_name_or_path": "a"}],
    ),
    "a_reward_is_named": ([PPO], [{**PPO, "rlhf.reward_model": "a"}]),
    "a_reward_adapter_keeps_its_base": (
        [
            {**PPO, "rlhf.reward_model": "r", "model.adapter_name_or_path": "a,b"},
            {
                **PPO,
                "rlhf.reward_model": "r",
                "model.adapter_name_or_path": "a",
                "method.create_new_adapter": True,
            },
        ],
        [
            {**PPO, "rlhf.reward_model": "r", "model.adapter_name_or_path": "a"},
            {**REWARDED, "model.adapter_name_or_path": "a,b"},
        ],
    ),
    "a_service_has_a_url": (
        [
            {**PPO, "rlhf.reward_model": "a", "rlhf.reward_model_type": "api"},
            {**PPO, "rlhf.reward_model": "http://localhost:1", "rlhf.reward_model_type": "full"},
        ],
        [
            {**PPO, "rlhf.reward_model": "https://a", "rlhf.reward_model_type": "api"},
            {**PPO, "rlhf.reward_model": "a", "rlhf.reward_model_type": "full"},
        ],
    ),
    "the_reward_has_four_or_eight_bits": (
        [{**REWARDED, "rlhf.reward_model_quantization_bit": 6}],
        [{**REWARDED, "rlhf.reward_model_quantization_bit": 4}],
    ),
    "prompts_are_at_hand": (
        [{**REWARDED, "data.streaming": True}],
        [REWARDED, {**SFT, "data.streaming": True, "training.max_steps": 5}],
    ),
}
