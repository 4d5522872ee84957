"""The child processes that are workers 1, 2, ...: how they start, receive their steps, and end."""

import atexit
import logging
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

import numpy as np

from lowered_cnn.arrays import InputError
from lowered_cnn.cores import BUFFER
from lowered_cnn.network import Network
from lowered_cnn.training.barrier import Barrier
from lowered_cnn.training.board import Board, Capacity
from lowered_cnn.training.interrupts import interrupts_held
from lowered_cnn.training.reduction import Reduction
from lowered_cnn.training.shared import SharedMemory
from lowered_cnn.training.worker import Step, Task, Worker

NAME = "lowered_cnn worker"
NO_GUARD = 64
"""The exit code of a worker whose main module trains when it is imported."""

LOOKS = 200
"""How many times a child polls for the next step before it sleeps: about a millisecond."""

SILENCE = 10.0
"""How many seconds a worker is waited for before that is logged; it is logged again after twice as long, and so on."""

PARENT_SECONDS = 0.5
"""How long a child waits between checks that its parent is alive."""


class Children:
    """The child processes, each with the connection that sends it its steps."""

    def __init__(self) -> None:
        self._children: list[tuple[SpawnProcess, Connection]] = []
        self._parent = os.getpid()
        self._silence = SILENCE
        atexit.register(self.end)  # multiprocessing would ask them to end, by a signal that they block, and wait

    def start(self, memory: SharedMemory, pickled: bytes) -> None:
        """Start the next child: a fresh interpreter that imports the caller's main module (not as `__main__`)."""
        number = len(self._children) + 1
        try:
            with interrupts_held(), _signals_blocked(), _spawn_known():
                self._start(number, memory, pickled)
        except OSError as error:
            raise ChildProcessError(f"train: {NAME} {number} could not be started: {error.strerror}") from error

    def _start(self, number: int, memory: SharedMemory, pickled: bytes) -> None:
        spawn = multiprocessing.get_context("spawn")
        ours, theirs = spawn.Pipe()
        arguments = (number, os.getpid(), theirs, memory, pickled)
        process = spawn.Process(target=_main, args=arguments, name=f"{NAME} {number}", daemon=True)
        process.start()
        theirs.close()
        self._children.append((process, ours))

    def send(self, step: Step) -> None:
        """Have all children do their part of a step, under the caller's np.errstate."""
        message = pickle.dumps((step, partial(np.errstate, **np.geterr())))
        for _, connection in self._children:
            try:
                connection.send_bytes(message)
            except ConnectionError:
                self.check()

    def check(self) -> None:
        """Raise what a child has raised, ChildProcessError if one has ended, or InputError in a fork of the parent."""
        if os.getpid() != self._parent:
            wanted = "the process that started its workers (save a checkpoint, and resume it here)"
            raise InputError("training", wanted, "a fork of it")
        for process, connection in self._children:
            if connection.poll():
                try:
                    error = connection.recv()
                except (EOFError, ConnectionError):
                    raise _ended(process) from None
                raise error

    def await_worker(self, number: int, seconds: float) -> None:
        """Check the children while worker `number` is waited for; after a long silence, say so."""
        self.check()
        if seconds < SILENCE:
            self._silence = SILENCE
        elif seconds >= self._silence:
            self._silence *= 2
            process, _ = self._children[number - 1]
            remedy = f"; it is stopped, and kill -CONT {process.pid} lets it go on" if _is_stopped(process) else ""
            line = f"train: {process.name} (process {process.pid}) has not answered for {seconds:.0f} s{remedy}"
            logging.getLogger("lowered_cnn").warning(line)

    def end(self) -> None:
        """Kill all children at once: they hold nothing that needs saving. In a fork of the parent, do nothing."""
        atexit.unregister(self.end)
        if os.getpid() != self._parent:
            return
        for process, _ in self._children:
            process.kill()
        for process, connection in self._children:
            process.join()
            process.close()
            connection.close()
        self._children.clear()


@contextmanager
def children(network: Network, task: Task, capacity: Capacity) -> Iterator[tuple[Board, Children]]:
    """Start all workers but the first, which is the caller; they end with the context.

    Raises InputError if the network, loss or optimizer cannot be sent to another process, if the main module cannot be
    imported by a child or would start training again, or if this process may have no children.
    """
    if multiprocessing.current_process().name.startswith(NAME):
        sys.exit(NO_GUARD)  # the parent reports it
    if multiprocessing.current_process().daemon:
        wanted = "1 in a daemonic process, such as those of multiprocessing.Pool, which may have no children"
        raise InputError("train: workers", wanted, capacity.workers)
    main = sys.modules["__main__"]
    program = getattr(main, "__file__", None)
    if main.__spec__ is None and program is not None and not os.path.exists(program):  # "<stdin>" if it was piped in
        raise InputError("train: workers", "a program in a file, because each worker imports it", program)
    try:
        pickled = pickle.dumps((network.model, network.input_shape, network.parameters.vector.dtype, task, capacity))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise InputError("train: workers", "layers, loss and optimizer that can be pickled", error) from error
    if main.__spec__ is None and program is None and b"__main__" in pickled:  # each worker has a main module of its own
        wanted = "layers, loss and optimizer from modules in files, which each worker imports (or workers=1)"
        raise InputError("train: workers", wanted, "a class that is in no file")
    buffers = len(task.optimizer.buffers)
    sizes = [array.nbytes for array in vars(Board.of(network, buffers, capacity, np.zeros)).values()]
    memory, started = SharedMemory(sizes), Children()
    try:
        for _ in range(1, capacity.workers):
            started.start(memory, pickled)
        yield Board.of(network, buffers, capacity, memory.zeros), started
    finally:
        started.end()
        memory.close()


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Block the signals that end a program; a process started here inherits that, so that they reach the parent alone.

    Ctrl-C, a closed terminal and `kill -- -GROUP` signal every process of the group.
    """
    resource_tracker.ensure_running()  # multiprocessing's own helper, whose start would unblock SIGINT
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _spawn_known() -> Iterator[None]:
    """Hide a start method that a child would not know: children take over their parent's, which joblib makes "loky"."""
    method = multiprocessing.get_start_method(allow_none=True)
    if method is None or method in multiprocessing.get_all_start_methods():
        yield
        return
    multiprocessing.set_start_method("spawn", force=True)
    try:
        yield
    finally:
        multiprocessing.set_start_method(method, force=True)


def _is_stopped(process: SpawnProcess) -> bool:
    """Return whether a process has been stopped, by SIGSTOP or a debugger; on macOS, which does not tell, False."""
    try:
        with open(f"/proc/{process.pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] in "Tt"
    except OSError:
        return False


def _ended(process: SpawnProcess) -> Exception:
    process.join()
    code = process.exitcode or 0
    if code == NO_GUARD:
        guard = 'a main module that trains only under `if __name__ == "__main__":`, because each worker imports it'
        return InputError("train: workers", guard, "one that trains on import")
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    return ChildProcessError(f"train: {process.name} {how}")


def _main(number: int, parent: int, connection: Connection, memory: SharedMemory, pickled: bytes) -> None:
    """Run worker `number` in a child process until the parent kills it or has ended."""
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    try:
        worker = _worker(number, memory, pickled)
        for step, errstate in _steps(connection):
            with errstate():
                worker.run(step)
    except BaseException as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        error.add_note(f"raised in worker {number}, at line {place.lineno} of {place.filename}")
        connection.send(_portable(error))


def _worker(number: int, memory: SharedMemory, pickled: bytes) -> Worker:
    from threadpoolctl import threadpool_limits

    threadpool_limits(1, user_api="blas")
    np.setbufsize(BUFFER)
    model, input_shape, dtype, task, capacity = pickle.loads(pickled)
    network = Network(model, input_shape, dtype=dtype)
    board = Board.of(network, len(task.optimizer.buffers), capacity, memory.zeros)
    memory.close()
    network.keep_parameters_in(board.parameters)
    return Worker(network, task, board, Reduction(board, number, Barrier(board.arrivals, number), task.rank))


def _steps(connection: Connection) -> Iterator[tuple[Step, Callable[[], np.errstate]]]:
    while True:
        # Steps usually follow one another within a millisecond, and waking up takes a good part of that.
        any(connection.poll() for _ in range(LOOKS))
        try:
            yield connection.recv()
        except EOFError:
            return


def _portable(error: BaseException) -> BaseException:
    """Return the error, or, if it cannot be pickled, one that can and says the same."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        portable = RuntimeError(f"{type(error).__qualname__}: {error}")
        portable.__notes__ = error.__notes__
        return portable
    return error


def _end_with(parent: int) -> None:
    """End this process once its parent has ended, even while it waits or computes."""
    while os.getppid() == parent:
        time.sleep(PARENT_SECONDS)
    os._exit(1)
