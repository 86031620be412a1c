"""What lives in memory while code runs on the meta device, whose tensors have shapes and no numbers.

`LiveMemory` counts bytes; `AsOnTheDevice` has operations keep what they would keep on a real device: autocast's casts,
and attention that holds no score matrix.
"""

import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveMemory(TorchDispatchMode):
    """Counts the storages that are made within it, in bytes, as long as anything holds them."""

    def __init__(self, known: Iterable[torch.Tensor]):
        """`known` are tensors that were there before, such as weights, and aren't counted."""
        super().__init__()
        self.now = self.peak = 0
        self._known = {tensor.untyped_storage()._cdata for tensor in known}
        self._held: dict[int, tuple[object, int]] = {}  # by storage: its weak reference, its bytes

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self._count(leaf.untyped_storage())
        return result

    def forget(self, tensor: torch.Tensor) -> None:
        """Count a tensor, which stays, no more."""
        key = tensor.untyped_storage()._cdata
        self._release(key)
        self._known.add(key)

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._held or key in self._known:
            return
        size = storage.nbytes()
        self._held[key] = (weakref.ref(storage, lambda _: self._release(key)), size)
        self.now += size
        self.peak = max(self.peak, self.now)

    def _release(self, key: int) -> None:
        _, size = self._held.pop(key, (None, 0))
        self.now -= size


class AsOnTheDevice(TorchFunctionMode):
    """Replaces what the meta device would do in another way than the device that trains."""

    def __init__(self, autocast: torch.dtype | None):
        """`autocast` is the type in which matrices are multiplied; None leaves them as they are."""
        super().__init__()
        self._autocast = autocast
        self._copies: dict[
            int, torch.Tensor
        ] = {}  # of trained weights, which autocast keeps for the whole pass, where it may

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        attends = func is F.scaled_dot_product_attention
        if not attends and (self._autocast is None or func not in MULTIPLIES):
            return func(*args, **(kwargs or {}))
        kwargs = dict(kwargs or {})
        if self._autocast is not None:
            args = [self._cast(value) for value in args]
            kwargs = {name: self._cast(value) for name, value in kwargs.items()}
        if attends:
            names = ("query", "key", "value")
            query, key, value = (
                kwargs[name] if name in kwargs else args[at] for at, name in enumerate(names)
            )
            if (
                kwargs.get("enable_gqa") and not torch.cuda.is_available()
            ):  # a CPU repeats them, CUDA's kernels don't
                groups = query.shape[1] // key.shape[1]
                key, value = (states.repeat_interleave(groups, dim=1) for states in (key, value))
            return _Attention.apply(query, key, value)
        return func(*args, **kwargs)

    def _cast(self, value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or value.dtype != torch.float32:
            return value
        if not (value.is_leaf and value.requires_grad and torch.is_autocast_cache_enabled()):
            return value.to(self._autocast)
        if id(value) not in self._copies:
            self._copies[id(value)] = value.to(self._autocast)
        return self._copies[id(value)]


MULTIPLIES = (F.linear, torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__, torch.bmm, torch.Tensor.bmm,
              torch.mm, torch.Tensor.mm, torch.addmm, torch.baddbmm, F.conv1d, F.conv2d, F.conv3d)  # fmt: skip


class _Attention(torch.autograd.Function):
    """Attention that keeps its inputs, its output and a number per line of scores."""

    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        output = query.new_empty(*query.shape[:-1], value.shape[-1])
        ctx.save_for_backward(
            query, key, value, output, query.new_empty(query.shape[:-1], dtype=torch.float32)
        )
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        query, key, value, *_ = ctx.saved_tensors
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


class Checkpointed(torch.autograd.Function):
    """`torch.utils.checkpoint`, without random numbers: the inputs are kept, the rest is computed again."""

    @staticmethod
    def forward(ctx: Any, function: Callable[..., Any], marker: torch.Tensor, *inputs: Any) -> Any:
        """`marker` has a gradient, so that weights within get theirs where no input has one."""
        ctx.function, ctx.inputs = function, inputs
        with torch.no_grad():
            return function(*inputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        inputs = [
            value.detach().requires_grad_(value.requires_grad) if isinstance(value, torch.Tensor) else value
            for value in ctx.inputs
        ]
        with torch.enable_grad():
            output = ctx.function(*inputs)
        outputs = [value for value in tree_leaves(output) if isinstance(value, torch.Tensor)]
        pairs = [
            (value, gradient)
            for value, gradient in zip(outputs, gradients, strict=False)
            if value.requires_grad
        ]
        if pairs:
            torch.autograd.backward([value for value, _ in pairs], [gradient for _, gradient in pairs])
        own = [value.grad if isinstance(value, torch.Tensor) else None for value in inputs]
        return None, None, *own
