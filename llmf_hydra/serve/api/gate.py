"""How many requests are answered at the same time, how many wait, and what happens when a client goes away."""

import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import anyio
from starlette.requests import Request

from llmf_hydra.serve.api.errors import ApiError

Result = TypeVar("Result")
GONE = 499  # nginx's status of a client that closed its connection; nobody reads it


class Gate:
    """Places for requests. A place is held from `enter` to `leave`."""

    def __init__(self, places: int, most_waiting: int):
        self._places, self._most_waiting = places, most_waiting
        self._free = anyio.Semaphore(places)
        self.waiting = 0
        self.inside = 0
        self._seconds = 1.0  # that a request takes, on the average of the last ones

    async def enter(self) -> float:
        """Wait for a place; returns when it was given. Raises ApiError (429) where too many wait already."""
        if self.waiting >= self._most_waiting and self._free.value == 0:
            seconds = max(1, math.ceil(self._seconds * (self.waiting + 1) / self._places))
            message = f"{self.inside} requests are answered and {self.waiting} wait already; try again later"
            raise ApiError(429, message, code="too_many_requests", headers={"Retry-After": str(seconds)})
        self.waiting += 1
        try:
            await self._free.acquire()
        finally:
            self.waiting -= 1
        self.inside += 1
        return time.monotonic()

    def leave(self, since: float) -> None:
        """Give a place back that was held since then."""
        self._free.release()
        self.inside -= 1
        self._seconds += 0.2 * (time.monotonic() - since - self._seconds)

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Within, a place is held."""
        since = await self.enter()
        try:
            yield
        finally:
            self.leave(since)


async def while_there(request: Request, work: Callable[[], Awaitable[Result]]) -> Result:
    """Do the work for a client; where it goes away the work is cancelled, with an ApiError. Raises what work raises."""
    found: list[Result] = []
    failed: list[Exception] = []

    async def do() -> None:
        try:
            found.append(await work())
        except Exception as error:  # not in a group of exceptions, so that handlers know it
            failed.append(error)
        group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        group.start_soon(do)
        while (await request.receive())["type"] != "http.disconnect":
            pass
        group.cancel_scope.cancel()
    if failed:
        raise failed[0]
    if not found:
        raise ApiError(GONE, "the client went away")
    return found[0]
