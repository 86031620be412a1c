"""Where the shipped folders lie, in a checkout and in a wheel, and where things are kept."""

import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def _shipped(name: str) -> Path:
    in_wheel = PACKAGE / "_shipped" / name
    return in_wheel if in_wheel.is_dir() else PACKAGE.parent / name


def conf_dir() -> Path:
    """The config groups that come with the package."""
    return _shipped("conf")


def sweeps_dir() -> Path:
    """The studies that come with the package."""
    return _shipped("sweeps")


def data_dir() -> Path:
    """The demo data that come with the package."""
    return _shipped("data")


def user_conf_dir() -> Path | None:
    """The user's own conf folder, whose files go before the shipped ones (`LLMF_CONF`)."""
    given = os.environ.get("LLMF_CONF")
    return Path(given).expanduser().absolute() if given else None


def cache_dir() -> Path:
    """Where converted models and tokenized data are kept (`LLMF_CACHE`, else the user's cache folder)."""
    given = os.environ.get("LLMF_CACHE")
    if given:
        return Path(given).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "llmf_hydra"
