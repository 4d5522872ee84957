"""Prediction: images run in chunks through a network lowered for inference, on several cores at once."""

import math
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from contextvars import copy_context
from functools import cached_property
from queue import Empty, SimpleQueue
from threading import Lock
from typing import TYPE_CHECKING, TypeAlias

from lowered_cnn.arrays import Array, Images
from lowered_cnn.cores import on_one_core, usable_cores

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

CHUNK = 64
"""Most examples per chunk: enough that threads seldom wait for the interpreter lock, few enough for the cache."""

CHUNK_NUMBERS = 640_000
"""Most numbers in the images of a chunk, which may be one image: 4 images of 224 x 224 pixels in three colours."""

CHUNK_WORK = 12_000_000
"""Fewest multiplications in a chunk that pay for a second thread: it takes 50 microseconds to wake."""

Forward: TypeAlias = Callable[[Images], Array]
"""Maps images (N, C, *size) to outputs (N, ...), for a fixed N; the outputs are valid until the next call."""

Lower: TypeAlias = Callable[[int], Forward]
"""Makes the form for a fixed N."""


class Predictor:
    """Runs chunks of images on threads: NumPy releases the interpreter lock while it computes.

    The chunks do not depend on the number of threads, so neither do the bits of the outputs. The lowered forms are kept
    between calls: one per thread, until chunks have another size, and one for images that do not fill a chunk, until
    their number is another. A thread takes a form, and puts it back when it is done. Threads are kept as long as the
    predictor: to start one takes as long as a small chunk. A fork has none of its parent's threads, one of which may
    hold the lock.
    """

    def __init__(self, multiplications: Callable[[], int]) -> None:
        self._count_multiplications = multiplications
        self._full: tuple[int, list[Forward]] = CHUNK, []
        self._rest: tuple[int, list[Forward]] = 0, []
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._predicting = Lock()  # so that calls at the same time do not each make forms
        self._pool: ThreadPoolExecutor | None = None
        self._most = 0

    def predict(self, lower: Lower, images: Images, outputs: Array, workers: int | None) -> None:
        """Write the outputs (N, ...) for images (N, C, *size); `lower` makes the forms that are missing."""
        if self._process != os.getpid():
            self._begin()
        with self._predicting, on_one_core():
            size = chunk_size(len(images), math.prod(images.shape[1:]), self._multiplications)
            if len(images) > size:
                if size != self._full[0]:
                    self._full = size, []
                self._share(lower, images, outputs, size, workers or self._cores)
            elif len(images):
                self._run(lower, images, outputs)

    def _share(self, lower: Lower, images: Images, outputs: Array, size: int, workers: int) -> None:
        """Let this thread and others take chunks until none are left."""
        chunks: SimpleQueue[slice] = SimpleQueue()
        for start in range(0, len(images), size):
            chunks.put(slice(start, start + size))

        def work() -> None:
            try:
                for part in _taken(chunks):
                    self._run(lower, images[part], outputs[part])
            finally:  # after an error or Ctrl-C, no thread takes another chunk
                for _ in _taken(chunks):
                    pass

        others = min(chunks.qsize(), workers) - 1
        futures: list[Future[None]] = []
        try:
            with suppress(RuntimeError):  # while Python exits, or if the system refuses, there are fewer threads
                for _ in range(others):
                    futures.append(self._threads(others).submit(copy_context().run, work))
            work()
        finally:
            errors = [future.exception() for future in futures]
        for error in filter(None, errors):
            raise error

    def _threads(self, count: int) -> "ThreadPoolExecutor":
        """Return at least `count` threads."""
        if self._pool is None or self._most < count:
            from concurrent.futures import ThreadPoolExecutor

            self._pool, self._most = ThreadPoolExecutor(count), count
        return self._pool

    @cached_property
    def _multiplications(self) -> int:
        return self._count_multiplications()

    @cached_property
    def _cores(self) -> int:
        return usable_cores()  # asked once: reading the quotas takes longer than a small chunk

    def _run(self, lower: Lower, images: Images, outputs: Array) -> None:
        # After a Ctrl-C, a thread may still be at work during the next call: no other gets the form that it has.
        forms = self._forms(len(images))
        try:
            form = forms.pop()
        except IndexError:
            form = lower(len(images))
        outputs[...] = form(images)
        forms.append(form)

    def _forms(self, count: int) -> list[Forward]:
        """Return the forms for so many images that no thread has taken."""
        for size, forms in (self._full, self._rest):
            if size == count:
                return forms
        forms = []
        self._rest = count, forms
        return forms


def chunk_size(count: int, numbers: int, multiplications: int) -> int:
    """Return how many of `count` images, each of so many numbers and multiplications, are a chunk.

    Images with work enough for two threads are cut into at least two chunks; fewer than two full ones are equal.
    """
    most = max(1, min(CHUNK, CHUNK_NUMBERS // numbers))
    if most == CHUNK and count >= 2 * CHUNK:
        return CHUNK
    parts = max(-(-count // most), 2 if count * multiplications >= 2 * CHUNK_WORK else 1)
    return max(1, -(-count // parts))


def _taken(chunks: SimpleQueue[slice]) -> Iterator[slice]:
    """Yield chunks from the queue until it is empty."""
    with suppress(Empty):
        while True:
            yield chunks.get_nowait()
