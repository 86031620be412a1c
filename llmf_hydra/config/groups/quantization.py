"""Group `quantization`: weights in few bits while training or generating (spec table quantization)."""

from dataclasses import dataclass

from llmf_hydra.config.param import param


@dataclass
class QuantizationConfig:
    quantization_method: str = param(
        "bitsandbytes",
        "Library that quantizes; bnb is another name of bitsandbytes.",
        choices=("bitsandbytes", "bnb", "hqq", "eetq"),
        planned=True,
    )
    quantization_bit: int | None = param(None, "Bits of the quantized weights.", ge=1, le=8, planned=True)
    quantization_type: str = param("nf4", "Type of 4-bit weights.", choices=("fp4", "nf4"), planned=True)
    double_quantization: bool = param(True, "Quantize the scales too.", planned=True)
    quantization_device_map: str | None = param(
        None, "Device map of a 4-bit model when generating.", choices=("auto",), planned=True
    )
