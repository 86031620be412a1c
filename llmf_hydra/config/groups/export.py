"""Group `export`: merged or quantized models on disk (spec table export)."""

from dataclasses import dataclass

from llmf_hydra.config.param import param


@dataclass
class ExportConfig:
    export_dir: str | None = param(
        None, "Output folder of the exported model.", jobs=("export",), planned=True
    )
    export_size: int = param(5, "Maximum size of a weight file in GB.", ge=1, jobs=("export",), planned=True)
    export_device: str = param(
        "cpu", "Device used for the export.", choices=("cpu", "auto"), jobs=("export",), planned=True
    )
    export_quantization_bit: int | None = param(
        None, "Bits to quantize the exported model to (GPTQ).", ge=2, le=8, jobs=("export",), planned=True
    )
    export_quantization_dataset: str | None = param(
        None, "Calibration dataset for the quantization.", jobs=("export",), planned=True
    )
    export_quantization_nsamples: int = param(
        128, "Number of calibration examples.", ge=1, jobs=("export",), planned=True
    )
    export_quantization_maxlen: int = param(
        1024, "Maximum tokens per calibration example.", ge=1, jobs=("export",), planned=True
    )
    export_legacy_format: bool = param(
        False, "Save .bin files instead of .safetensors.", jobs=("export",), planned=True
    )
    export_hub_model_id: str | None = param(
        None, "Hub repository to push the model to.", jobs=("export",), planned=True
    )
