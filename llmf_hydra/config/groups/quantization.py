"""Group `quantization`: quantized weights for training and inference (spec table quantization)."""

from dataclasses import dataclass

from llmf_hydra.config.choices import QUANTIZER_ALIASES, QUANTIZERS
from llmf_hydra.config.param import param

QUANTIZED = {
    "quantization.quantization_bit": tuple(sorted({bit for q in QUANTIZERS.values() for bit in q.bits}))
}
FOUR_BITS = {
    "quantization.quantization_bit": (4,),
    "quantization.quantization_method": ("bitsandbytes", "bnb"),
}


@dataclass
class QuantizationConfig:
    quantization_method: str = param(
        "bitsandbytes",
        "Quantization library; bnb is an alias of bitsandbytes.",
        choices=("bitsandbytes", "bnb", "hqq", "eetq"),
        only=QUANTIZED,
    )
    quantization_bit: int | None = param(
        None,
        "Bits of the quantized weights, on which adapters are trained: 4 or 8 (bitsandbytes), 1, 2, 3, 4 or 8 (hqq), "
        "8 (eetq, needs CUDA).",
        ge=1,
        le=8,
    )
    quantization_type: str = param(
        "nf4",
        "Data type of 4-bit weights: nf4 (for normally distributed weights, arXiv:2305.14314) or fp4.",
        choices=("fp4", "nf4"),
        only=FOUR_BITS,
    )
    double_quantization: bool = param(
        True, "Quantize the quantization constants of 4-bit weights too.", only=FOUR_BITS
    )
    quantization_device_map: str | None = param(
        None,
        "Device map of a 4-bit model at inference; training places the model itself.",
        choices=("auto",),
        only=FOUR_BITS,
    )

    @property
    def library(self) -> str:
        """The library that quantizes, by its own name."""
        return QUANTIZER_ALIASES.get(self.quantization_method, self.quantization_method)
