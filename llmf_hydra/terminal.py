"""Standard output and error that outlive their reader: `| head -1` or a closed terminal must not end a training.

And the end of a process that has said all it had to say.
"""

import atexit
import errno
import io
import os
import sys
import threading
from typing import TYPE_CHECKING, NoReturn, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

GONE = (
    errno.EPIPE,
    errno.EIO,
    errno.EBADF,
)  # a pipe without a reader, a terminal that hung up, a closed file


class _File(io.FileIO):
    """A file descriptor. What nobody can read any more is dropped; a full disk is still an error."""

    def write(self, b: "ReadableBuffer", /) -> int:
        try:
            return super().write(b) or 0
        except OSError as error:
            if error.errno not in GONE:
                raise
            return memoryview(b).nbytes


class _Stream(io.TextIOWrapper):
    """A text stream on a `_File`."""


def outlive_readers() -> None:
    """Have this process print to streams that don't fail because their reader is gone. Safe to call twice."""
    sys.stdout = _lasting(sys.stdout, 1)
    sys.stderr = _lasting(sys.stderr, 2)


def leave(code: int) -> NoReturn:
    """End this process as `sys.exit` does, but leave it to the kernel to take apart what libraries have built.

    That is half a second of work for PyTorch and its kin, in which one of their threads can still end the process by a
    signal.
    """
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads that aren't daemons
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and not stream.closed:
            stream.flush()
    os._exit(code)


def _lasting(stream: TextIO | None, number: int) -> TextIO:
    if stream is None:  # closed by the shell (`>&-`)
        return _nowhere(number)
    if not isinstance(stream, io.TextIOWrapper) or isinstance(stream, _Stream) or not _is_on(stream, number):
        return stream  # replaced already, by us or by a caller
    stream.flush()
    return _Stream(
        io.BufferedWriter(_File(number, "w", closefd=False)),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def _is_on(stream: TextIO, number: int) -> bool:
    try:
        return stream.fileno() == number
    except OSError:  # in memory
        return False


def _nowhere(number: int) -> TextIO:
    """A stream to nowhere, whose file number is taken: else a file opened later gets it, and all that is printed."""
    try:
        os.fstat(number)
    except OSError:
        null = os.open(os.devnull, os.O_WRONLY)
        if null != number:
            os.dup2(null, number)
            os.close(null)
    return open(os.devnull, "w", encoding="utf8")  # noqa: PTH123 -- for as long as the process lives
