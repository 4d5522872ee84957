"""Prediction on threads: the same bits for any number of them, nothing lowered twice, and no error lost."""

import contextlib
import gc
import itertools
import os
import signal
import subprocess
import sys
import threading
import warnings
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from running import normal
from threadpoolctl import threadpool_info, threadpool_limits

from lowered_cnn import Conv2D, Dense, Flatten, InputError, MaxPool, Network, ReLU, Sequential, prediction
from lowered_cnn.arrays import Array
from lowered_cnn.cores import BUFFER, on_one_core
from lowered_cnn.gemm import Product, listen
from lowered_cnn.network import LoweredNetwork, multiplications
from lowered_cnn.prediction import CHUNK, CHUNK_NUMBERS, CHUNK_WORK, chunk_size


@pytest.fixture
def network() -> Network:
    return Network(Sequential(Conv2D(16, 3), ReLU(), MaxPool(2), Flatten(), Dense(300), Dense(4)), (1, 12, 12))


def images(count: int) -> Array:
    return normal(count, 1, 12, 12).astype(np.float32)


def blas_threads() -> set[int]:
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


@pytest.fixture
def _two_blas_threads() -> Iterator[None]:
    with threadpool_limits(2, user_api="blas"):
        yield


class Watch:
    """Stands in for each forward pass, and remembers who ran it, on how many examples, and with what BLAS."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.runs: list[tuple[str, int]] = []
        self.lowered: list[int] = []
        self.blas: set[int] = set()
        self.buffers: set[int] = set()
        self.fails_on: int | None = None
        self.meeting = threading.Barrier(1)
        numbers = itertools.count(1)
        forward, lower = LoweredNetwork.forward, Network.lower

        def watched(lowered: LoweredNetwork, part: Any) -> Array:
            self.runs.append((threading.current_thread().name, len(part)))
            self.blas |= blas_threads()
            self.buffers.add(np.getbufsize())
            self.meeting.wait(timeout=30)
            if self.fails_on == next(numbers):
                raise FloatingPointError("planted")
            return forward(lowered, part)

        def watched_lower(network: Network, batch: int, **options: Any) -> LoweredNetwork:
            self.lowered.append(batch)
            return lower(network, batch, **options)

        monkeypatch.setattr(LoweredNetwork, "forward", watched)
        monkeypatch.setattr(Network, "lower", watched_lower)


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    return Watch(monkeypatch)


@pytest.mark.parametrize("count", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 5 * CHUNK, 5 * CHUNK + 7])
def test_outputs_have_the_same_bits_for_any_number_of_workers(network: Network, count: int) -> None:
    x = images(count)
    size = chunk_size(count, 144, multiplications(network.model, network.input_shape))
    alone = [
        network.lower(len(x[start : start + size]), training=False).forward(x[start : start + size])
        for start in range(0, count, size)
    ]
    expected = np.concatenate(alone) if alone else np.empty((0, 4), np.float32)
    for workers in (1, 2, 3, 16, None):
        got = network.predict(x, workers=workers)
        assert got.dtype == np.float32
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(("workers", "threads"), [(1, 1), (2, 2), (3, 3), (4, 4), (None, 3), (100, 12)])
def test_as_many_threads_as_workers_take_chunks_until_none_is_left(
    network: Network, watch: Watch, monkeypatch: pytest.MonkeyPatch, workers: int | None, threads: int
) -> None:
    """No thread runs a chunk before all have one, so that each takes its turn."""
    monkeypatch.setattr(prediction, "usable_cores", lambda: 3)
    watch.meeting = threading.Barrier(threads)
    network.predict(images(11 * CHUNK + 3), workers=workers)
    assert sorted(count for _, count in watch.runs) == [3] + 11 * [CHUNK]
    assert list(Counter(name for name, _ in watch.runs).values()) == threads * [12 // threads]


def test_one_worker_is_the_caller(network: Network, watch: Watch) -> None:
    network.predict(images(3 * CHUNK), workers=1)
    assert {name for name, _ in watch.runs} == {threading.current_thread().name}


def test_lowered_forms_are_kept(network: Network, watch: Watch) -> None:
    for _ in range(3):
        network.predict(images(2 * CHUNK + 3), workers=1)
    assert watch.lowered == [CHUNK, 3]
    network.predict(images(5))
    network.predict(images(3))
    assert watch.lowered == [CHUNK, 3, 5, 3]


@pytest.mark.usefixtures("_two_blas_threads")
def test_blas_runs_one_thread_meanwhile(network: Network, watch: Watch) -> None:
    network.predict(images(3))
    network.predict(images(3 * CHUNK), workers=2)
    assert watch.blas == {1}
    assert blas_threads() == {2}


def test_numpy_has_a_small_buffer_meanwhile(network: Network, watch: Watch) -> None:
    before = np.getbufsize()
    network.predict(images(3))
    network.predict(images(3 * CHUNK), workers=2)
    assert watch.buffers == {BUFFER} != {before}
    assert np.getbufsize() == before


@pytest.mark.usefixtures("_two_blas_threads")
def test_blas_gets_its_threads_back_when_the_last_user_leaves() -> None:
    with on_one_core():
        entered, leave = threading.Event(), threading.Event()

        def use() -> set[int]:
            with on_one_core():
                entered.set()
                leave.wait()
                return blas_threads()

        with ThreadPoolExecutor(1) as pool:
            other = pool.submit(use)
            entered.wait()
            assert blas_threads() == {1}
            leave.set()
            assert other.result() == {1}
        assert blas_threads() == {1}
    assert blas_threads() == {2}


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs timers that send signals")
@pytest.mark.usefixtures("_two_blas_threads")
def test_ctrl_c_at_any_moment_leaves_numpy_as_it_was(network: Network) -> None:
    """Most of the time for one image goes into entering and leaving, so that is where most interrupts arrive."""
    x, buffer, moments = images(1), np.getbufsize(), np.random.default_rng(0).uniform(1e-4, 2e-3, 200)
    network.predict(x)
    handler = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        for moment in moments:
            with contextlib.suppress(KeyboardInterrupt):
                signal.setitimer(signal.ITIMER_REAL, moment)
                while True:
                    network.predict(x)
            assert (blas_threads(), np.getbufsize()) == ({2}, buffer)
    finally:
        signal.signal(signal.SIGALRM, handler)


@pytest.mark.usefixtures("_two_blas_threads")
def test_blas_is_limited_in_every_thread_one_after_the_other() -> None:
    def use() -> set[int]:
        with on_one_core():
            return blas_threads()

    assert use() == {1}
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(use).result() == {1}
    assert blas_threads() == {2}


@pytest.mark.usefixtures("_two_blas_threads")
@pytest.mark.parametrize("run", [1, 2, 9])
def test_an_error_ends_all_threads_and_is_raised(network: Network, watch: Watch, run: int) -> None:
    watch.fails_on = run
    with pytest.raises(FloatingPointError, match="planted"):
        network.predict(images(40 * CHUNK), workers=2)
    assert len(watch.runs) < 40
    assert blas_threads() == {2}
    assert network.predict(images(40 * CHUNK), workers=2).shape == (40 * CHUNK, 4)


def test_after_ctrl_c_no_other_takes_the_form_of_a_thread_still_at_work(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, entered, leave = images(6 * CHUNK), threading.Event(), threading.Event()
    forward = LoweredNetwork.forward
    used, busy, others = set[LoweredNetwork](), list[LoweredNetwork](), itertools.count()

    def watched(lowered: LoweredNetwork, part: Any) -> Array:
        if threading.current_thread() is threading.main_thread():
            entered.wait(timeout=30)
        elif next(others) == 0:
            busy.append(lowered)
            entered.set()
            leave.wait(timeout=30)
        used.add(lowered)
        return forward(lowered, part)

    def interrupted(future: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(LoweredNetwork, "forward", watched)
    entered.set()
    expected = network.predict(x, workers=1)
    entered.clear()
    with monkeypatch.context() as patch:
        patch.setattr("concurrent.futures.Future.exception", interrupted)
        with pytest.raises(KeyboardInterrupt):
            network.predict(x, workers=3)
    used.clear()
    try:
        assert np.array_equal(network.predict(x, workers=3), expected)
        assert used
        assert not used & set(busy)
    finally:
        leave.set()


@pytest.mark.parametrize("refused", [1, 2])
def test_without_another_thread_fewer_take_all_chunks(
    network: Network, refused: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers, start = itertools.count(1), threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if next(numbers) == refused:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    for count in (6, 5, 6):
        x = images(count * CHUNK)
        assert np.array_equal(network.predict(x, workers=3), network.predict(x, workers=1))


@pytest.mark.parametrize("before", ["pass", "predict()"])
def test_while_python_exits_the_caller_predicts_alone(before: str) -> None:
    code = f"""
import atexit
import numpy as np
from lowered_cnn import Dense, Network
network = Network([Dense(4)], (9,))
predict = lambda: network.predict(np.ones(({4 * CHUNK}, 9)), workers=2)
{before}
atexit.register(lambda: print(predict().shape))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == (f"({4 * CHUNK}, 4)\n", "")


def test_products_on_all_threads_are_heard(network: Network) -> None:
    def products(workers: int) -> list[Product]:
        with listen() as heard:
            network.predict(images(4 * CHUNK), workers=workers)
        return sorted(heard, key=str)

    assert products(1) == products(2) != []


def test_chunks_are_bounded_and_work_enough_for_two_threads_is_shared() -> None:
    generator = np.random.default_rng(0)
    for _ in range(500):
        count, numbers = int(generator.integers(0, 200)), int(10 ** generator.uniform(0, 7))
        work = int(10 ** generator.uniform(3, 10))
        size = chunk_size(count, numbers, work)
        assert 1 <= size <= CHUNK
        assert size == 1 or size * numbers <= CHUNK_NUMBERS
        if count >= 2 and size == count:
            assert count * work < 2 * CHUNK_WORK
        if 1 < size < count <= CHUNK and count * numbers <= CHUNK_NUMBERS:
            assert size * work >= CHUNK_WORK


@pytest.mark.parametrize("count", [1, 2, 5, 8])
def test_large_images_have_the_same_bits_for_any_number_of_workers(count: int, watch: Watch) -> None:
    large = Network(Sequential(Conv2D(2, 5, stride=4), ReLU(), MaxPool(3, 2, 1), Flatten(), Dense(4)), (3, 220, 220))
    x = normal(count, 3, 220, 220).astype(np.float32)
    expected = large.predict(x, workers=1)
    size = chunk_size(count, 3 * 220 * 220, multiplications(large.model, large.input_shape))
    assert {part for _, part in watch.runs} <= {size, count % size}
    for workers in (2, 3, None):
        np.testing.assert_array_equal(large.predict(x, workers=workers), expected)


@pytest.mark.parametrize("workers", [0, -1, 1.5, "2"])
def test_a_wrong_number_of_workers_is_told(network: Network, workers: Any) -> None:
    with pytest.raises(InputError) as caught:
        network.predict(images(1), workers=workers)
    assert str(caught.value) == f"predict: workers: expected a whole number of at least 1, got {workers!r}"


def test_threads_are_kept_and_end_with_their_network(network: Network) -> None:
    def others() -> set[int]:
        return {thread.ident or 0 for thread in threading.enumerate()} - before

    before = set[int]()
    before = others()
    for workers in (3, 2, 3):
        network.predict(images(8 * CHUNK), workers=workers)
        assert 1 <= len(others()) <= 2
    started = [thread for thread in threading.enumerate() if thread.ident in others()]
    network.__setstate__(network.__getstate__())  # it starts anew, without what held the threads
    gc.collect()
    for thread in started:
        thread.join(timeout=30)
        assert not thread.is_alive()


def fork_predicts(network: Network, x: Array, expected: Array) -> bool:
    """Fork, and return whether the child predicts the expected outputs in time."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 and later warn of forks with threads
        child = os.fork()
    if not child:
        signal.alarm(20)
        os._exit(0 if np.array_equal(network.predict(x, workers=2), expected) else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_predicts_on_threads_of_its_own(network: Network) -> None:
    x = images(4 * CHUNK)
    assert fork_predicts(network, x, network.predict(x, workers=2))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_predicts_though_a_thread_was_predicting(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    x, parent, entered, leave = images(4 * CHUNK), os.getpid(), threading.Event(), threading.Event()
    forward = LoweredNetwork.forward

    def held(lowered: LoweredNetwork, part: Any) -> Array:
        if os.getpid() == parent and threading.current_thread() is not threading.main_thread():
            entered.set()
            leave.wait(timeout=60)
        return forward(lowered, part)

    monkeypatch.setattr(LoweredNetwork, "forward", held)
    expected = network.predict(x, workers=1)
    with ThreadPoolExecutor(1) as pool:
        amid = pool.submit(network.predict, x, workers=1)
        entered.wait()
        predicted = fork_predicts(network, x, expected)
        leave.set()
        assert predicted
        np.testing.assert_array_equal(amid.result(), expected)
