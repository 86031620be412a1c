"""Group `quantization`: quantized weights for training and inference (spec table quantization)."""

from dataclasses import dataclass

from llmf_hydra.config.param import param


@dataclass
class QuantizationConfig:
    quantization_method: str = param(
        "bitsandbytes",
        "Quantization library; bnb is an alias of bitsandbytes.",
        choices=("bitsandbytes", "bnb", "hqq", "eetq"),
        planned=True,
    )
    quantization_bit: int | None = param(None, "Bits of the quantized weights.", ge=1, le=8, planned=True)
    quantization_type: str = param("nf4", "Data type of 4-bit weights.", choices=("fp4", "nf4"), planned=True)
    double_quantization: bool = param(True, "Quantize the quantization constants too.", planned=True)
    quantization_device_map: str | None = param(
        None, "Device map of a 4-bit model at inference.", choices=("auto",), planned=True
    )
