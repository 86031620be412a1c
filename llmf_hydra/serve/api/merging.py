"""Several streams as one."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import TypeVar

Item = TypeVar("Item")


async def merged(sources: Sequence[AsyncGenerator[Item]]) -> AsyncIterator[tuple[int, Item]]:
    """The items of several sources as they come, each with its source's number. Raises what a source raises."""
    if len(sources) == 1:
        async for item in sources[0]:
            yield 0, item
        return
    # One after another in turn: all of them are written in the same batch, a token each at a time.
    left = dict(enumerate(sources))
    while left:
        for number, source in list(left.items()):
            try:
                item = await anext(source)
            except StopAsyncIteration:
                del left[number]
                continue
            yield number, item
