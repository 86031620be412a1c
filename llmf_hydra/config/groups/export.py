"""Group `export`: the merged or quantized model on disk (spec table export)."""

from dataclasses import dataclass

from llmf_hydra.config.param import param


@dataclass
class ExportConfig:
    export_dir: str | None = param(None, "Folder of the exported model.", jobs=("export",), planned=True)
    export_size: int = param(5, "Size of a file of weights in GB.", ge=1, jobs=("export",), planned=True)
    export_device: str = param(
        "cpu", "Device of the export.", choices=("cpu", "auto"), jobs=("export",), planned=True
    )
    export_quantization_bit: int | None = param(
        None, "Bits of the exported weights (GPTQ).", ge=2, le=8, jobs=("export",), planned=True
    )
    export_quantization_dataset: str | None = param(
        None, "Data the quantization is calibrated on.", jobs=("export",), planned=True
    )
    export_quantization_nsamples: int = param(
        128, "Rows the quantization is calibrated on.", ge=1, jobs=("export",), planned=True
    )
    export_quantization_maxlen: int = param(
        1024, "Tokens a row of calibration.", ge=1, jobs=("export",), planned=True
    )
    export_legacy_format: bool = param(
        False, "Save .bin files instead of .safetensors.", jobs=("export",), planned=True
    )
    export_hub_model_id: str | None = param(
        None, "Repository on the hub that the model is pushed to.", jobs=("export",), planned=True
    )
