"""Adapters on the residual of a base (PiSSA): where what they need lies. Without torch."""

from pathlib import Path

RESIDUAL = (
    "residual"  # folder beside a saved adapter: the adapter that, merged into the base, gives the residual
)


def residual_of(adapter: str) -> Path | None:
    """The residual that a saved adapter stands on; None for one that stands on the base itself."""
    folder = Path(adapter).expanduser() / RESIDUAL
    return folder if (folder / "adapter_config.json").is_file() else None
