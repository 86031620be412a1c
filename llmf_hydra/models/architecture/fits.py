"""Which models the changes of this folder are built for, and by how much positions are scaled. Without torch."""

import math

SHIFTED = ("llama",)  # every layer attends to all that came before
DEPTHS = ("llama", "mistral", "qwen2", "qwen3")  # layers take positions and a mask, and give hidden states
DEPTHS_FIELD = "mixture_of_depths"  # of the config of a converted model
EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")  # fields of a config


def rope_factor(length: int, own: int) -> float:
    """How many times a model's own length holds `length` tokens."""
    return float(math.ceil(length / own))
