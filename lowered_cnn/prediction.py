"""Prediction: images run in chunks through a network lowered for inference, on several cores at once."""

import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from contextvars import copy_context
from functools import cached_property
from queue import Empty, SimpleQueue
from threading import Lock
from typing import TypeAlias

from lowered_cnn.arrays import Array, Images
from lowered_cnn.cores import on_one_core, usable_cores

CHUNK = 64
"""Most examples per chunk: enough that threads seldom wait for the interpreter lock, few enough for the cache."""

CHUNK_NUMBERS = 640_000
"""Most numbers in the images of a chunk, which may be one image: 4 images of 224 x 224 pixels in three colours."""

Forward: TypeAlias = Callable[[Images], Array]
"""Maps images (N, C, *size) to outputs (N, ...), for a fixed N; the outputs are valid until the next call."""


Lower: TypeAlias = Callable[[int], Forward]
"""Makes the form for a fixed N."""


class Predictor:
    """Runs chunks of images on threads: NumPy releases the interpreter lock while it computes.

    The chunks do not depend on the number of threads, so neither do the bits of the outputs. The lowered forms are kept
    between calls: one per thread, and one for the images that do not fill a chunk, until chunks have another size.
    """

    def __init__(self) -> None:
        self._size = CHUNK
        self._full: dict[int, Forward] = {}
        self._rest: dict[int, Forward] = {}
        self._predicting = Lock()  # all callers share the buffers of the lowered forms

    def predict(self, lower: Lower, images: Images, outputs: Array, workers: int | None) -> None:
        """Write the outputs (N, ...) for images (N, C, *size); `lower` makes the forms that are missing."""
        with self._predicting, on_one_core():
            size = chunk_size(len(images), math.prod(images.shape[1:]))
            if len(images) > size:
                if size != self._size:
                    self._size, self._full = size, {}
                self._share(lower, images, outputs, workers or self._cores)
            elif len(images):
                self._run(lower, images, outputs, 0)

    def _share(self, lower: Lower, images: Images, outputs: Array, workers: int) -> None:
        """Let this thread and others take chunks until none are left."""
        from concurrent.futures import ThreadPoolExecutor

        chunks: SimpleQueue[slice] = SimpleQueue()
        for start in range(0, len(images), self._size):
            chunks.put(slice(start, start + self._size))

        def work(thread: int) -> None:
            try:
                for part in _taken(chunks):
                    self._run(lower, images[part], outputs[part], thread)
            finally:  # after an error or Ctrl-C, no thread takes another chunk
                for _ in _taken(chunks):
                    pass

        others = range(1, min(chunks.qsize(), workers))
        with ThreadPoolExecutor(max(len(others), 1)) as pool:
            futures = [pool.submit(copy_context().run, work, thread) for thread in others]
            work(0)
        for future in futures:
            future.result()

    @cached_property
    def _cores(self) -> int:
        return usable_cores()  # asked once: reading the quotas takes longer than a small chunk

    def _run(self, lower: Lower, images: Images, outputs: Array, thread: int) -> None:
        outputs[...] = self._lowered_for(lower, len(images), thread)(images)

    def _lowered_for(self, lower: Lower, count: int, thread: int) -> Forward:
        if count == self._size:
            if thread not in self._full:
                self._full[thread] = lower(count)
            return self._full[thread]
        if count not in self._rest:
            self._rest = {count: lower(count)}
        return self._rest[count]


def chunk_size(count: int, numbers: int) -> int:
    """Return how many of `count` images, each of so many numbers, are a chunk.

    Large images are cut into at least two chunks, as equal as possible: each is work enough for a thread.
    """
    most = max(1, CHUNK_NUMBERS // numbers)
    if most >= CHUNK:
        return CHUNK
    parts = max(-(-count // most), min(count, 2), 1)
    return max(1, -(-count // parts))


def _taken(chunks: SimpleQueue[slice]) -> Iterator[slice]:
    """Yield chunks from the queue until it is empty."""
    with suppress(Empty):
        while True:
            yield chunks.get_nowait()
