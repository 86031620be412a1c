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
    lora_rank: int = param(8, "Rank of the LoRA update; more rank, more trainable weights.", ge=1, only=LORA)
    lora_alpha: int | None = param(None, "LoRA scaling factor; null means 2 x lora_rank.", ge=0, only=LORA)
    lora_dropout: float = param(0.0, "Dropout on the input of the LoRA update.", ge=0, lt=1, only=LORA)
    lora_target: str = param(
        "all", "Modules that get LoRA, separated by commas; all = every linear layer.", only=LORA
    )
    additional_target: str | None = param(
        None, "Modules beside LoRA that are trained and saved whole, separated by commas.", only=LORA
    )
    use_rslora: bool = param(
        False, "Rank-stabilised LoRA: scale by alpha / sqrt(rank) (arXiv:2312.03732).", only=LORA
    )
    use_dora: bool = param(False, "Weight-decomposed LoRA (arXiv:2402.09353).", only=LORA)
    loraplus_lr_ratio: float | None = param(
        None, "LoRA+: learning rate of B over that of A (arXiv:2402.12354).", gt=0, only=LORA, planned=True
    )
    loraplus_lr_embedding: float | None = param(
        1e-6, "LoRA+: learning rate of LoRA on embeddings.", gt=0, only=LORA, planned=True
    )
    pissa_init: bool = param(
        False, "Start LoRA from the principal components (PiSSA, arXiv:2404.02948).", only=LORA, planned=True
    )
    pissa_iter: int | None = param(
        16, "Iterations of PiSSA's fast SVD; -1 takes the exact SVD.", ge=-1, only=LORA, planned=True
    )
    pissa_convert: bool = param(
        False, "Turn the PiSSA adapter into a plain LoRA adapter when it is saved.", only=LORA, planned=True
    )
    create_new_adapter: bool = param(
        False, "Merge the adapters of model.adapter_name_or_path and train a new one on top.", only=LORA
    )
    # Freeze tuning
    freeze_trainable_layers: int = param(
        2, "Layers that are trained: n > 0 the last n, n < 0 the first n.", only=FREEZE
    )
    freeze_trainable_modules: str = param(
        "all", "Modules of those layers that are trained, separated by commas.", only=FREEZE
    )
    freeze_extra_modules: str | None = param(
        None, "Modules outside the hidden layers that are trained too.", only=FREEZE
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
