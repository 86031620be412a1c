"""Whether a template is blind to contents: it only writes them out, and never asks what they say.

For such a template what stands around the contents depends on the roles alone, so that a layout holds for all
rows and need not be compared with a rendering of each. The proof is by syntax and errs on the safe side.
"""

import functools
from collections.abc import Iterator
from typing import cast

from jinja2 import nodes

from llmf_hydra.data.chat.jinja import parsed

_KEYS = {"role", "content", "tool_calls", "reasoning_content", "thinking", "name", "tool_call_id"}
_NEIGHBOURS = {"previtem", "nextitem", "changed"}  # of `loop`: ways to other messages
_CAPTURES = (nodes.AssignBlock, nodes.FilterBlock, nodes.Macro, nodes.Include, nodes.Import, nodes.FromImport)


@functools.cache
def is_blind(text: str) -> bool:
    """True only if each use of a content stands in what is written out, as it is."""
    tree = parsed(text)
    loops = [loop for loop in tree.find_all(nodes.For) if _name(loop.iter) == "messages"]
    single = {name for loop in loops if (name := _name(loop.target))}
    return all(_harmless(way, single) for way in _ways(tree, ()))


def _ways(node: nodes.Node, above: tuple[nodes.Node, ...]) -> Iterator[tuple[nodes.Node, ...]]:
    """Each node with those above it, itself first."""
    way = (node, *above)
    yield way
    for child in node.iter_child_nodes():
        yield from _ways(child, way)


def _harmless(way: tuple[nodes.Node, ...], single: set[str]) -> bool:
    node = way[0]
    if isinstance(node, _CAPTURES):
        return False
    if isinstance(node, nodes.CallBlock):  # only ours, for {% generation %}
        return isinstance(node.call.node, nodes.ExtensionAttribute)
    if isinstance(node, nodes.Getattr | nodes.Getitem):
        return _reads_harmlessly(node, way[1:])
    if isinstance(node, nodes.Name) and node.ctx == "load":
        return _named_harmlessly(way, single)
    return True


def _reads_harmlessly(node: nodes.Getattr | nodes.Getitem, above: tuple[nodes.Node, ...]) -> bool:
    key = _key(node)
    if key == "content":
        joining = (nodes.Add, nodes.Concat)
        return isinstance(next(one for one in above if not isinstance(one, joining)), nodes.Output)
    return key is not None and key not in _NEIGHBOURS


def _named_harmlessly(way: tuple[nodes.Node, ...], single: set[str]) -> bool:
    """A message is asked for a known key only; all messages are looped over, or one is taken and asked so."""
    node, parent = cast(nodes.Name, way[0]), way[1]
    if node.name in single:
        return _asks(parent, node)
    if node.name != "messages" or (isinstance(parent, nodes.For) and parent.iter is node):
        return True
    taken = isinstance(parent, nodes.Getitem) and parent.node is node and isinstance(_key(parent), int)
    return taken and _asks(way[2], parent)


def _asks(asking: nodes.Node, asked: nodes.Node) -> bool:
    return (
        isinstance(asking, nodes.Getattr | nodes.Getitem) and asking.node is asked and _key(asking) in _KEYS
    )


def _key(node: nodes.Getattr | nodes.Getitem) -> object:
    if isinstance(node, nodes.Getattr):
        return node.attr
    return node.arg.value if isinstance(node.arg, nodes.Const) else None


def _name(node: nodes.Node) -> str | None:
    return node.name if isinstance(node, nodes.Name) else None
