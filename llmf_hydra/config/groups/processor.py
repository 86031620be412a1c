"""Group `processor`: sizes of images and videos (spec table processor)."""

from dataclasses import dataclass

from llmf_hydra.config.param import param


@dataclass
class ProcessorConfig:
    image_max_pixels: int = param(768 * 768, "Most pixels of an image.", ge=1, planned=True)
    image_min_pixels: int = param(32 * 32, "Fewest pixels of an image.", ge=1, planned=True)
    video_max_pixels: int = param(256 * 256, "Most pixels of a video's frame.", ge=1, planned=True)
    video_min_pixels: int = param(16 * 16, "Fewest pixels of a video's frame.", ge=1, planned=True)
    video_fps: float = param(2.0, "Frames taken per second of video.", gt=0, planned=True)
    video_maxlen: int = param(128, "Most frames of a video.", ge=1, planned=True)
