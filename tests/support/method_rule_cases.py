"""Cases of the rules of the methods: changes that a rule refuses, and near ones that it lets pass."""

Changes = dict[str, object]

PISSA = {"method.pissa_init": True}
PPO = {"stage.name": "ppo", "rlhf.reward_model": "a"}
OFT, FREEZE, FULL = {"method.name": "oft"}, {"method.name": "freeze"}, {"method.name": "full"}
RATIO = {"method.loraplus_lr_ratio": 4.0}

METHOD_CASES: dict[str, tuple[list[Changes], list[Changes]]] = {
    "loraplus_needs_groups": (
        [{**RATIO, "optimizer.name": "muon"}, {**RATIO, "optimizer.name": "galore"}],
        [RATIO, {**RATIO, "optimizer.name": "sgd"}, {**RATIO, "optimizer.name": "adafactor"}],
    ),
    "embeddings_have_a_rate_in_loraplus": (
        [{"method.loraplus_lr_embedding": 1e-3}, {"method.loraplus_lr_embedding": None}],
        [{**RATIO, "method.loraplus_lr_embedding": 1e-3}],
    ),
    "dora_stays_pissa": (
        [{**PISSA, "method.pissa_convert": True, "method.use_dora": True}],
        [{**PISSA, "method.use_dora": True}, {**PISSA, "method.pissa_convert": True}],
    ),
    "pissa_needs_whole_weights": ([{**PISSA, "quantization.quantization_bit": 4}], [PISSA]),
    "a_reward_adapter_needs_the_base": (
        [{**PPO, **PISSA}],
        [PPO, {**PPO, **PISSA, "rlhf.reward_model_type": "full"}],
    ),
    "oft_has_one_size": (
        [{**OFT, "method.oft_rank": 4, "method.oft_block_size": 8}, {**OFT, "method.oft_block_size": 0},
         {**OFT, "method.oft_block_size": 1}],
        [OFT, {**OFT, "method.oft_rank": 4}, {**OFT, "method.oft_rank": 4, "method.oft_block_size": 0}],
    ),
    "llama_pro_counts_its_blocks": (
        [{**FREEZE, "method.use_llama_pro": True, "method.freeze_trainable_layers": -2}],
        [{**FREEZE, "method.use_llama_pro": True}, {**FREEZE, "method.freeze_trainable_layers": -2}],
    ),
    "the_projector_or_the_tower": (
        [{**FULL, "method.train_mm_proj_only": True, "method.freeze_vision_tower": False}],
        [{**FULL, "method.train_mm_proj_only": True}, {**FULL, "method.freeze_vision_tower": False}],
    ),
    "a_folder_of_adapters_that_are_named": (
        [{"model.adapter_folder": "a"}, {"model.adapter_name_or_path": "a/b", "model.adapter_folder": "/a"},
         {"model.adapter_name_or_path": "a/b", "model.adapter_folder": "../a"}],
        [{"model.adapter_name_or_path": "a/b", "model.adapter_folder": "a"}],
    ),
}  # fmt: skip
