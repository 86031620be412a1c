"""Rules of quantized weights."""

from collections.abc import Iterator
from pathlib import Path

from llmf_hydra import optional
from llmf_hydra.checks.register import PACKAGES, rule
from llmf_hydra.config.choices import LEARNING_JOBS, LOADING_JOBS, METHODS, MODEL_JOBS, QUANTIZERS
from llmf_hydra.config.schema import Config
from llmf_hydra.errors import Problem

BIT, METHOD = "quantization.quantization_bit", "quantization.quantization_method"
NVIDIA = (Path("/dev/nvidiactl"), Path("/proc/driver/nvidia"), Path("/dev/dxg"))


@rule(BIT, METHOD, jobs=MODEL_JOBS)
def the_library_has_these_bits(cfg: Config) -> Iterator[Problem]:
    """bitsandbytes quantizes to 4 or 8 bits, hqq to 1, 2, 3, 4 or 8, eetq to 8."""
    bits, library = cfg.quantization.quantization_bit, cfg.quantization.library
    known = QUANTIZERS[library].bits
    if bits is not None and bits not in known:
        others = [name for name, info in QUANTIZERS.items() if bits in info.bits]
        remedy = f"set {METHOD}={others[0]}" if others else "choose one of them"
        yield Problem(BIT, bits, f"{library} quantizes to {' or '.join(map(str, known))} bits", remedy)


@rule(BIT, "method.name", jobs=LEARNING_JOBS)
def quantized_weights_carry_adapters(cfg: Config) -> Iterator[Problem]:
    """Quantized weights are not trained: quantization goes with method=lora."""
    if cfg.quantization.quantization_bit is not None and not METHODS[cfg.method.name].adapters:
        what = f"quantized weights are not trained, and method={cfg.method.name} trains them"
        yield Problem(
            BIT, cfg.quantization.quantization_bit, what, "choose method=lora, or quantization=none"
        )


@rule("quantization.quantization_device_map", jobs=LEARNING_JOBS)
def training_places_the_model(cfg: Config) -> Iterator[Problem]:
    """quantization.quantization_device_map is for inference: training places the model on its process's device."""
    given = cfg.quantization.quantization_device_map
    if given is not None:
        what = f"is for inference, and job={cfg.job.name} places the model on its process's device"
        yield Problem("quantization.quantization_device_map", given, what, "leave it out")


@rule(BIT, METHOD, phase=PACKAGES, jobs=LOADING_JOBS)
def the_library_is_installed(cfg: Config) -> Iterator[Problem]:
    """Quantization needs its library: bitsandbytes, hqq, or kernels for eetq, which needs an NVIDIA GPU too."""
    quantization = cfg.quantization
    if quantization.quantization_bit is None:
        return
    info = QUANTIZERS[quantization.library]
    if info.cuda and not any(map(Path.exists, NVIDIA)):
        what = f"{quantization.library} computes on an NVIDIA GPU (CUDA), and this machine has none"
        yield Problem(METHOD, quantization.quantization_method, what, "choose bitsandbytes or hqq")
        return
    missing = optional.missing(
        info.package, extra=info.extra, key=f"{METHOD}={quantization.quantization_method}"
    )
    yield from [missing] if missing is not None else []
