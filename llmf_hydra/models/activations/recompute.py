"""Elementwise results are computed again in the backward pass, from tensors that are kept anyway.

Autograd keeps the inputs of matrix products and of most functions, and many of them are one pass over memory away from
others that it keeps too: a gated MLP's product from gate and up, a norm's output from its input and one number per
token, a cast from what was cast, expanded keys from the keys. Here such a tensor is replaced by its recipe. The same
operators compute it on the same numbers, so losses and gradients keep every bit; no matrix product is computed twice.
The simple version is to wrap `act(gate) * up` and its kin in `torch.utils.checkpoint`, by hand for each network.
"""

import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
# Functions of their inputs alone, an element or a copy at a time.
ELEMENTWISE = frozenset({
    aten._to_copy.default, aten.clone.default, aten.cat.default,
    aten.mul.Tensor, aten.add.Tensor, aten.sub.Tensor, aten.div.Tensor, aten.neg.default,
    aten.pow.Tensor_Scalar, aten.square.default, aten.rsqrt.default, aten.exp.default,
    aten.silu.default, aten.gelu.default, aten.relu.default, aten.sigmoid.default, aten.tanh.default,
})  # fmt: skip
SUMS = (aten.add.Tensor, aten.sub.Tensor)
SMALL = 2**12  # bytes of a tensor that isn't worth a recipe
RECENT = 3  # results that were computed again and are at hand: several consumers ask for one, in a row


class View(NamedTuple):
    """A tensor as a view of its storage."""

    of: "Node"
    size: torch.Size
    stride: tuple[int, ...]
    offset: int


class Node:
    """A storage that an operator of the forward pass has read or written, and how it was computed."""

    __slots__ = ("args", "bytes", "device", "dtype", "func", "kept", "kwargs", "mutated", "storage")

    def __init__(self, tensor: torch.Tensor, storage: torch.UntypedStorage, *, kept: bool):
        self.storage = weakref.ref(storage)
        self.dtype, self.device, self.bytes = tensor.dtype, tensor.device, storage.nbytes()
        self.kept = kept  # whether something holds it until the backward pass
        self.mutated = False
        self.func: Callable[..., torch.Tensor] | None = None
        self.args: Sequence[Any] = ()
        self.kwargs: Mapping[str, Any] = {}

    def inputs(self) -> "Iterator[Node]":
        """The nodes that it is computed from."""
        for arg in self.args:
            for one in arg if isinstance(arg, list) else (arg,):
                if isinstance(one, View):
                    yield one.of


class Recipe(NamedTuple):
    """What autograd holds in place of a tensor: a view of a node, and the storages from which that is computed."""

    view: View
    held: dict[Node, torch.UntypedStorage]


class Recomputed(TorchDispatchMode):
    """Within it, what autograd would keep is replaced by its recipe, where that needs less memory.

    Raises RuntimeError in the backward pass where a tensor that it needs was changed in place, as autograd does.
    """

    def __init__(self, lasting: Callable[[], Iterator[torch.Tensor]]):
        """`lasting` gives the tensors that stay in memory, such as weights."""
        super().__init__()
        self._lasting, self._stays = lasting, frozenset[int]()
        self._nodes: dict[int, Node] = {}  # by storage
        self._recent: OrderedDict[Node, torch.Tensor] = OrderedDict()
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, self._unpack)
        self._cache = False  # autocast's, as it was

    def __enter__(self) -> "Recomputed":
        self._nodes, self._recent = {}, OrderedDict()
        self._stays = frozenset(tensor.untyped_storage()._cdata for tensor in self._lasting())
        # Autocast would hold its copies of weights for the whole pass, though each is used once.
        self._cache = torch.is_autocast_cache_enabled()
        torch.set_autocast_cache_enabled(False)
        self._hooks.__enter__()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._hooks.__exit__(*error)
        torch.set_autocast_cache_enabled(self._cache)
        self._nodes = {}  # recipes hold those that they need

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in ELEMENTWISE:
            self._note(func, args, kwargs or {}, result)
        elif _changes(func):
            self._forget(func, args, kwargs or {})
        return result

    def _note(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], result: torch.Tensor) -> None:
        """Remember how a tensor was computed."""
        storage = result.untyped_storage()
        if storage.nbytes() < SMALL:
            return
        whole = sum(isinstance(arg, torch.Tensor) and arg.numel() == result.numel() for arg in args)
        if func in SUMS and whole > 1:
            # Sums of two streams follow one another through all layers: none is to be computed from all before it.
            return
        node = Node(result, storage, kept=False)
        node.func, node.kwargs = func, kwargs
        node.args = [
            [self._view(one) for one in arg] if isinstance(arg, list | tuple) else self._view(arg)
            for arg in args
        ]
        self._nodes[storage._cdata] = node

    def _view(self, arg: Any) -> Any:
        if not isinstance(arg, torch.Tensor):
            return arg
        return View(self._node(arg), arg.shape, arg.stride(), int(arg.storage_offset()))

    def _node(self, tensor: torch.Tensor) -> Node:
        storage = tensor.untyped_storage()
        node = self._nodes.get(storage._cdata)
        if node is None or node.storage() is None:
            node = Node(tensor, storage, kept=storage._cdata in self._stays)
            self._nodes[storage._cdata] = node
        return node

    def _forget(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """An operator has written into tensors that were there."""
        given = dict(zip((argument.name for argument in func._schema.arguments), args, strict=False)) | dict(
            kwargs
        )
        for argument in func._schema.arguments:
            written = (
                given.get(argument.name) if argument.alias_info and argument.alias_info.is_write else None
            )
            for tensor in written if isinstance(written, list | tuple) else (written,):
                if isinstance(tensor, torch.Tensor):
                    node = self._nodes.pop(tensor.untyped_storage()._cdata, None)
                    if node is not None:
                        node.mutated = True

    def _pack(self, tensor: torch.Tensor) -> torch.Tensor | Recipe:
        if type(tensor) not in (torch.Tensor, torch.nn.Parameter):
            return tensor
        node = self._node(tensor)
        held = None if node.kept or node.func is None else self._roots(node)
        more = 0 if held is None else sum(root.bytes for root in held if not root.kept)
        if held is None or more >= node.bytes or node.dtype != tensor.dtype:
            node.kept = True
            return tensor
        for root in held:
            root.kept = True
        return Recipe(View(node, tensor.shape, tensor.stride(), int(tensor.storage_offset())), held)

    def _roots(self, node: Node) -> dict[Node, torch.UntypedStorage] | None:
        """The storages from which a node is computed: of those that are kept the nearest; None where one is gone."""
        found: dict[Node, torch.UntypedStorage] = {}
        waiting, seen = [*node.inputs()], set[Node]()
        while waiting:
            one = waiting.pop()
            if one in seen:
                continue
            seen.add(one)
            if one.mutated:
                return None
            storage = one.storage()
            if storage is not None and (one.kept or one.func is None):
                found[one] = storage
            elif one.func is not None:
                waiting.extend(one.inputs())
            else:
                return None
        return found

    def _unpack(self, packed: torch.Tensor | Recipe) -> torch.Tensor:
        if not isinstance(packed, Recipe):
            return packed
        if any(root.mutated for root in packed.held):
            raise RuntimeError("a tensor that the backward pass needs was changed in place")
        with torch.no_grad(), torch._C._DisableAutocast():
            return self._seen(packed.view, packed.held)

    def _seen(self, view: View, held: Mapping[Node, torch.UntypedStorage]) -> torch.Tensor:
        node = view.of
        if (storage := held.get(node)) is not None:
            whole = torch.empty(0, dtype=node.dtype, device=node.device)
            return whole.set_(storage, view.offset, view.size, view.stride)  # pyright: ignore[reportArgumentType]
        return self._computed(node, held).as_strided(view.size, view.stride, view.offset)

    def _computed(self, node: Node, held: Mapping[Node, torch.UntypedStorage]) -> torch.Tensor:
        if node in self._recent:
            return self._recent[node]
        args = [
            [self._given(one, held) for one in arg] if isinstance(arg, list) else self._given(arg, held)
            for arg in node.args
        ]
        assert node.func is not None
        result = node.func(*args, **node.kwargs)
        self._recent[node] = result
        if len(self._recent) > RECENT:
            self._recent.popitem(last=False)
        return result

    def _given(self, arg: Any, held: Mapping[Node, torch.UntypedStorage]) -> Any:
        return self._seen(arg, held) if isinstance(arg, View) else arg


_mutable: dict[Any, bool] = {}


def _changes(func: Any) -> bool:
    if func not in _mutable:
        _mutable[func] = bool(func._schema.is_mutable)
    return _mutable[func]
