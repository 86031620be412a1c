"""Group `method`: which weights are trained (spec tables finetuning, lora, freeze)."""

from dataclasses import dataclass

from llmf_hydra.config.choices import METHODS, planned
from llmf_hydra.config.param import param

LORA = {"method.name": ("lora",)}
OFT = {"method.name": ("oft",)}
ADAPTERS = {"method.name": tuple(name for name, info in METHODS.items() if info.adapters)}
FREEZE = {"method.name": ("freeze",)}
PISSA = {**LORA, "method.pissa_init": (True,)}


@dataclass
class MethodConfig:
    name: str = param(
        "lora",
        "Fine-tuning method: lora and oft (adapters), freeze (some layers), full (all weights).",
        choices=tuple(METHODS),
        planned_choices=planned(METHODS),
    )
    # LoRA: Hu et al. 2021, arXiv:2106.09685
    lora_rank: int = param(8, "Rank of the LoRA update.", ge=1, only=LORA)
    lora_alpha: int | None = param(None, "LoRA scaling factor; null means 2 x lora_rank.", ge=0, only=LORA)
    lora_dropout: float = param(0.0, "Dropout on the LoRA input.", ge=0, lt=1, only=LORA)
    lora_target: str = param(
        "all",
        "Modules to apply LoRA to, separated by commas: names, or regular expressions of whole paths; all = every "
        "linear layer but the output head.",
        only=LORA,
    )
    additional_target: str | None = param(
        None, "Further modules to train and save in full, separated by commas.", only=ADAPTERS
    )
    use_rslora: bool = param(
        False, "Rank-stabilized LoRA: scale by alpha / sqrt(rank) (arXiv:2312.03732).", only=LORA
    )
    use_dora: bool = param(False, "Weight-decomposed LoRA (arXiv:2402.09353).", only=LORA)
    loraplus_lr_ratio: float | None = param(
        None,
        "LoRA+: ratio of the learning rates of B and A (arXiv:2402.12354); null trains both at "
        "training.learning_rate.",
        gt=0,
        only=LORA,
    )
    loraplus_lr_embedding: float | None = param(
        1e-6,
        "LoRA+: learning rate of embedding adapters; null takes training.learning_rate.",
        gt=0,
        only=LORA,
    )
    pissa_init: bool = param(
        False,
        "Initialize LoRA with the principal components of the weights (PiSSA, arXiv:2404.02948).",
        only=LORA,
    )
    pissa_iter: int | None = param(
        16, "Iterations of PiSSA's fast SVD; -1 and null compute the exact SVD.", ge=-1, only=PISSA
    )
    pissa_convert: bool = param(
        False, "Convert the PiSSA adapter to a plain LoRA adapter of twice its rank on saving.", only=PISSA
    )
    create_new_adapter: bool = param(
        False,
        "Merge the adapters of model.adapter_name_or_path and train a new one on top.",
        only=ADAPTERS,
    )
    # Freeze tuning
    freeze_trainable_layers: int = param(
        2, "Trainable layers: the last n, or the first -n if negative.", only=FREEZE
    )
    freeze_trainable_modules: str = param(
        "all", "Trainable modules within those layers, separated by commas.", only=FREEZE
    )
    freeze_extra_modules: str | None = param(
        None, "Further trainable modules outside the hidden layers, separated by commas.", only=FREEZE
    )
    use_llama_pro: bool = param(
        False,
        "Train only the blocks added by `llmf expand` (LLaMA Pro, arXiv:2401.02415); freeze counts them by "
        "freeze_trainable_layers.",
        only={"method.name": ("freeze", "lora")},
    )
    # OFT: Qiu et al. 2023, arXiv:2306.07280
    oft_rank: int = param(
        0, "OFT: number of blocks per layer; 0 takes oft_block_size instead.", ge=0, only=OFT
    )
    oft_block_size: int = param(32, "OFT: size of a block; 0 takes oft_rank instead.", ge=0, only=OFT)
    oft_target: str = param("all", "OFT: modules to apply it to, given like lora_target.", only=OFT)
    module_dropout: float = param(
        0.0, "OFT: probability with which a block is left out in a training step.", ge=0, lt=1, only=OFT
    )
    # Models that see
    freeze_vision_tower: bool = param(True, "Keep the vision tower of a multimodal model frozen.")
    freeze_multi_modal_projector: bool = param(True, "Keep the multimodal projector frozen.")
    train_mm_proj_only: bool = param(
        False, "Train the multimodal projector and nothing else.", only={"method.name": ("full",)}
    )

    @property
    def alpha(self) -> int:
        """The LoRA scaling factor in force: `lora_alpha`, or twice the rank. A given 0 stays 0."""
        return 2 * self.lora_rank if self.lora_alpha is None else self.lora_alpha
