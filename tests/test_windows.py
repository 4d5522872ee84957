"""What is there without POSIX, as far as a POSIX system can act as one that is not: all but several workers."""

import subprocess
import sys
from pathlib import Path

import pytest

WITHOUT_POSIX = """
import os, pathlib, pkgutil, signal, sys
import numpy, safetensors.numpy, threadpoolctl, tqdm

MODULES = "fcntl grp posix pty pwd resource syslog termios tty _posixshmem multiprocessing.popen_spawn_posix".split()
FUNCTIONS = '''
chown confstr ctermid fchmod fchown fork forkpty getegid geteuid getgid getgroups getloadavg getpgid getpgrp
getpriority getsid getuid killpg lockf mkfifo mknod nice openpty posix_fadvise posix_fallocate posix_spawn pread
pwrite register_at_fork sched_get_priority_max sched_getaffinity sched_setaffinity sched_yield sendfile setsid statvfs
sync sysconf tcgetpgrp ttyname uname wait wait3 wait4
'''.split()
SIGNALS = '''
SIG_BLOCK SIG_SETMASK SIG_UNBLOCK SIGALRM SIGCHLD SIGHUP SIGKILL SIGPIPE SIGQUIT SIGUSR1 alarm getitimer
pthread_kill pthread_sigmask setitimer sigpending sigwait
'''.split()
for module in MODULES:
    sys.modules[module] = None
for name in FUNCTIONS:
    vars(os).pop(name, None)
for name in SIGNALS:
    vars(signal).pop(name, None)
pathlib.Path.__new__.__globals__["WindowsPath"] = pathlib.PosixPath  # what Path makes where os.name is "nt"
os.name = "nt"

import lowered_cnn
for module in pkgutil.walk_packages(lowered_cnn.__path__, "lowered_cnn."):
    ours = module.name.removeprefix("lowered_cnn.")
    if not ours.startswith("interop") and ours not in ("training.processes", "training.shared", "cli.__main__"):
        __import__(module.name)
os.name = "posix"  # other libraries ask for it while they run
"""

TRAINS = """
import numpy as np
from lowered_cnn import Dense, Flatten, Network, Recipe, Sequential, evaluate, load, save, train

data = np.zeros((40, 1, 4, 4), np.uint8), [0, 1] * 20
network = Network(Sequential(Flatten(), Dense(2)), (1, 4, 4))
*_, record = train(network, data, Recipe(epochs=1, batch_size=20), dev=data)
save(network, "network")
print(record.dev_accuracy, evaluate(load("network"), data).accuracy)
train(network, data, workers=2)
"""

COMMAND = """
from lowered_cnn.cli import main
sys.exit(main(sys.argv[1:]))
"""


def without_posix(program: str, folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", WITHOUT_POSIX + program, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


@pytest.mark.slow
def test_only_several_workers_need_posix(tmp_path: Path) -> None:
    done = without_posix("print({'lowered_cnn.cli.train', 'lowered_cnn.verify'} <= sys.modules.keys())", tmp_path)
    assert (done.stdout, done.stderr) == ("True\n", "")
    planted = without_posix("import lowered_cnn.training.processes", tmp_path)
    assert "ModuleNotFoundError: import of _posix" in planted.stderr


def test_one_worker_trains_and_several_are_refused(tmp_path: Path) -> None:
    done = without_posix(TRAINS, tmp_path)
    assert done.stdout == "0.5 0.5\n", done.stderr
    line = "train: workers: expected 1 on this system, as several workers need POSIX (Linux, macOS), got 2"
    assert done.stderr.splitlines()[-1] == f"lowered_cnn.arrays.InputError: {line}"


@pytest.mark.slow
def test_the_command_line_trains_with_one_worker(few_digits: Path, tmp_path: Path) -> None:
    train = ["train", "--data", str(few_digits), "--no-report", "--epochs", "1", "--out", "run"]
    done = without_posix(COMMAND, tmp_path, *train, "--json")
    assert done.returncode == 0, done.stderr
    assert '"workers": 1,' in done.stdout
    refused = without_posix(COMMAND, tmp_path, *train[:-1], "other", "--workers", "2")
    assert (refused.returncode, refused.stderr) == (
        2,
        "lowered-cnn train: train: workers: expected 1 on this system, as several workers need POSIX (Linux, macOS), "
        "got 2\n",
    )
