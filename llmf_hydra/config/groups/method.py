"""Group `method`: which weights are trained (spec tables finetuning, lora, freeze)."""

from dataclasses import dataclass

from llmf_hydra.config.choices import METHODS, planned
from llmf_hydra.config.param import param

LORA = {"method.name": ("lora",)}
FREEZE = {"method.name": ("freeze",)}


@dataclass
class MethodConfig:
    name: str = param(
        "lora",
        "Fine-tuning method: lora (adapters), freeze (some layers), full (all weights).",
        choices=tuple(METHODS),
        planned_choices=planned(METHODS),
    )
    # LoRA: Hu et al. 2021, arXiv:2106.09685
    lora_rank: int = param(8, "Rank of the LoRA update.", ge=1, only=LORA)
    lora_alpha: int | None = param(None, "LoRA scaling factor; null means 2 x lora_rank.", ge=0, only=LORA)
    lora_dropout: float = param(0.0, "Dropout on the LoRA input.", ge=0, lt=1, only=LORA)
    lora_target: str = param(
        "all", "Modules to apply LoRA to, separated by commas; all = every linear layer.", only=LORA
    )
    additional_target: str | None = param(
        None, "Further modules to train and save in full, separated by commas.", only=LORA
    )
    use_rslora: bool = param(
        False, "Rank-stabilized LoRA: scale by alpha / sqrt(rank) (arXiv:2312.03732).", only=LORA
    )
    use_dora: bool = param(False, "Weight-decomposed LoRA (arXiv:2402.09353).", only=LORA)
    loraplus_lr_ratio: float | None = param(
        None,
        "LoRA+: ratio of the learning rates of B and A (arXiv:2402.12354).",
        gt=0,
        only=LORA,
        planned=True,
    )
    loraplus_lr_embedding: float | None = param(
        1e-6, "LoRA+: learning rate of embedding adapters.", gt=0, only=LORA, planned=True
    )
    pissa_init: bool = param(
        False,
        "Initialize LoRA with the principal components of the weights (PiSSA, arXiv:2404.02948).",
        only=LORA,
        planned=True,
    )
    pissa_iter: int | None = param(
        16, "Iterations of PiSSA's fast SVD; -1 computes the exact SVD.", ge=-1, only=LORA, planned=True
    )
    pissa_convert: bool = param(
        False, "Convert the PiSSA adapter to a plain LoRA adapter on saving.", only=LORA, planned=True
    )
    create_new_adapter: bool = param(
        False, "Merge the adapters of model.adapter_name_or_path and train a new one on top.", only=LORA
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
        False, "Train only the blocks added by LLaMA Pro's expansion (arXiv:2401.02415).", planned=True
    )
    # Models that see
    freeze_vision_tower: bool = param(
        True, "Keep the vision tower of a multimodal model frozen.", planned=True
    )
    freeze_multi_modal_projector: bool = param(True, "Keep the multimodal projector frozen.", planned=True)
    train_mm_proj_only: bool = param(False, "Train the multimodal projector and nothing else.", planned=True)

    @property
    def alpha(self) -> int:
        """The LoRA scaling factor in force: `lora_alpha`, or twice the rank. A given 0 stays 0."""
        return 2 * self.lora_rank if self.lora_alpha is None else self.lora_alpha
