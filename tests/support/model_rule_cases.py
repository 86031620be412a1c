"""Cases of the rules of the model: changes that a rule refuses, and near ones that it lets pass."""

Changes = dict[str, object]

DPO, KTO, SFT, RM = ({"stage.name": name} for name in ("dpo", "kto", "sft", "rm"))
PAIR = {"training.per_device_train_batch_size": 2}
FULL = {"method.name": "full"}
SHIFTED, DEPTHS = {"model.shift_attn": True}, {"model.mixture_of_depths": "convert", **FULL}
YARN, DYNAMIC = {"model.rope_scaling": "yarn"}, {"model.rope_scaling": "dynamic"}
BALANCED = {"model.moe_aux_loss_coef": 0.01}
NORMS, HEAD = {"model.upcast_layernorm": True}, {"model.upcast_lmhead_output": True}
SINGLE = {"model.compute_dtype": "float32"}
PLACES = {"model.embed_tokens": "cpu", "model.layers.1": "disk"}
UNSLOTH = {"model.use_unsloth": True}

MODEL_CASES: dict[str, tuple[list[Changes], list[Changes]]] = {
    "the_model_takes_whole_rows": (
        [{"model.model_max_length": 100}, {"model.model_max_length": 4096, "data.cutoff_len": 5000}],
        [{"model.model_max_length": 4096}, {"model.model_max_length": 100, "data.cutoff_len": 100}],
    ),
    "positions_are_those_of_the_reference": (
        [{**DPO, **DYNAMIC}, {**KTO, **PAIR, **DYNAMIC}, {**DPO, **YARN, "rlhf.ref_model": "a"}],
        [{**DPO, **YARN}, {**SFT, **DYNAMIC}, {**DPO, **DYNAMIC, "rlhf.pref_loss": "orpo"}, {**RM, **DYNAMIC}],
    ),
    "shifted_groups_hold_one_row": (
        [{**SHIFTED, "data.neat_packing": True}, {**SHIFTED, **DPO}, {**SHIFTED, **KTO, **PAIR}],
        [{**SHIFTED, "data.packing": True}, {**SHIFTED, **DPO, "rlhf.pref_loss": "simpo"}, {**SHIFTED, **RM}],
    ),
    "blocks_are_rows_of_packs": (
        [{"model.block_diag_attn": True}, {"model.block_diag_attn": True, **RM}],
        [{"model.block_diag_attn": True, "data.packing": True},
         {"model.block_diag_attn": True, "data.neat_packing": True}, {"data.packing": True}],
    ),
    "depths_hold_one_row": (
        [{**DEPTHS, "data.neat_packing": True}, {**DEPTHS, **SHIFTED},
         {**DEPTHS, "data.packing": True, "model.block_diag_attn": True}],
        [{**DEPTHS, "data.packing": True}, DEPTHS],
    ),
    "routers_are_read_from_files": (
        [{**FULL, "model.mixture_of_depths": "load", "model.train_from_scratch": True}],
        [{**DEPTHS, "model.train_from_scratch": True}, {**FULL, "model.mixture_of_depths": "load"}],
    ),
    "unsloth_loads_the_model_itself": (
        [{**UNSLOTH, **YARN}, {**UNSLOTH, "model.flash_attn": "sdpa"}, {**UNSLOTH, "model.device_map": "cpu"}],
        [UNSLOTH],
    ),
    "balance_has_a_gradient": (
        [BALANCED],
        [{**BALANCED, "model.use_reentrant_gc": False}, {**BALANCED, "model.disable_gradient_checkpointing": True},
         {"model.moe_aux_loss_coef": 0.0}],
    ),
    "something_is_upcast": (
        [{**NORMS, **SINGLE}, {**HEAD, **SINGLE}, {**NORMS, **SINGLE, **FULL, "training.bf16": True}],
        [NORMS, {**HEAD, "model.compute_dtype": "bfloat16"}, {**HEAD, **SINGLE, **FULL, "training.bf16": True}],
    ),
    "weights_have_one_place": (
        [{"model.device_map": "nowhere"}, {"model.device_map": {"": "moon"}}, {"model.device_map": [1]},
         {"model.device_map": PLACES},
         {"model.device_map": {"": "cpu", "model.norm": "disk"}},
         {"model.device_map": True}, {"model.device_map": "cpu", "launch.nproc_per_node": 2}],
        [{"model.device_map": "auto"}, {"model.device_map": {"model.embed_tokens": "cpu", "model.norm": "0"}},
         {"launch.nproc_per_node": 2}],
    ),
    "something_is_offloaded": (
        [{"model.offload_folder": "a"}, {"model.offload_folder": "a", "model.device_map": {"": "cpu"}}],
        [{"model.offload_folder": "a", "model.device_map": "auto"}],
    ),
}  # fmt: skip
