"""Group `export`: merged or quantized models on disk (spec table export)."""

from dataclasses import dataclass

from llmf_hydra.config.param import param

JOBS = ("export",)
QUANTIZES = {"export.export_quantization_bit": (2, 3, 4, 8)}


@dataclass
class ExportConfig:
    export_dir: str | None = param(
        None, "Output folder of the exported model: a new or an empty one.", jobs=JOBS
    )
    export_size: int = param(5, "Maximum size of a weight file in GB.", ge=1, jobs=JOBS)
    export_device: str = param(
        "cpu",
        "Device on which adapters are merged: cpu, or auto for the GPUs where there are any.",
        choices=("cpu", "auto"),
        jobs=JOBS,
    )
    export_quantization_bit: int | None = param(
        None, "Bits to quantize the exported model to by GPTQ: 2, 3, 4 or 8.", ge=2, le=8, jobs=JOBS
    )
    export_quantization_dataset: str | None = param(
        None,
        "Calibration dataset: an entry of dataset_info.json, a file or a hub name.",
        jobs=JOBS,
        only=QUANTIZES,
    )
    export_quantization_nsamples: int = param(
        128, "Number of calibration examples.", ge=1, jobs=JOBS, only=QUANTIZES
    )
    export_quantization_maxlen: int = param(
        1024, "Maximum tokens per calibration example.", ge=1, jobs=JOBS, only=QUANTIZES
    )
    export_legacy_format: bool = param(False, "Save .bin files instead of .safetensors.", jobs=JOBS)
    export_hub_model_id: str | None = param(
        None, "Repository on the Hugging Face hub to push the model to, as owner/name.", jobs=JOBS
    )
    overwrite: bool = param(False, "Replace an earlier export in export_dir.", jobs=JOBS)
