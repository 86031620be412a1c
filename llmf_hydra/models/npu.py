"""Ascend NPUs, through the package torch_npu."""

import importlib

import torch


def set_compile_mode(jit_compile: bool) -> None:
    """Compile operators just in time, or take the ones that come compiled."""
    importlib.import_module("torch_npu")  # brings torch.npu
    torch.npu.set_compile_mode(jit_compile=jit_compile)  # type: ignore[attr-defined]
