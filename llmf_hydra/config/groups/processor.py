"""Group `processor`: image and video sizes (spec table processor)."""

from dataclasses import dataclass

from llmf_hydra.config.param import param


@dataclass
class ProcessorConfig:
    image_max_pixels: int = param(768 * 768, "Maximum pixels per image.", ge=1, planned=True)
    image_min_pixels: int = param(32 * 32, "Minimum pixels per image.", ge=1, planned=True)
    video_max_pixels: int = param(256 * 256, "Maximum pixels per video frame.", ge=1, planned=True)
    video_min_pixels: int = param(16 * 16, "Minimum pixels per video frame.", ge=1, planned=True)
    video_fps: float = param(2.0, "Frames sampled per second of video.", gt=0, planned=True)
    video_maxlen: int = param(128, "Maximum frames per video.", ge=1, planned=True)
