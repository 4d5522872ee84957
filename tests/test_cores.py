"""How many cores there are to use: affinity and the quotas of cgroups, as containers set them."""

import os
from pathlib import Path

import pytest

from lowered_cnn.cores import usable_cores


@pytest.fixture(autouse=True)
def _eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "process_cpu_count" if hasattr(os, "process_cpu_count") else "sched_getaffinity"
    monkeypatch.setattr(os, name, lambda *_: 8 if name == "process_cpu_count" else set(range(8)))


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")


def test_without_cgroups_the_affinity_counts(tmp_path: Path) -> None:
    assert usable_cores(tmp_path) == 8


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("max 100000", 8), ("400000 100000", 4), ("250000 100000", 2), ("50000 100000", 1), ("1600000 100000", 8)],
)
def test_version_2(quota: str, cores: int, tmp_path: Path) -> None:
    write(tmp_path, {"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": quota})
    assert usable_cores(tmp_path) == cores


def test_where_no_cgroups_are_mounted_the_affinity_counts(tmp_path: Path) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("")
    assert usable_cores(tmp_path) == 8


def test_the_tightest_of_nested_groups_counts(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "proc/self/cgroup": "0::/outer/inner",
            "sys/fs/cgroup/outer/cpu.max": "300000 100000",
            "sys/fs/cgroup/outer/inner/cpu.max": "500000 100000",
        },
    )
    assert usable_cores(tmp_path) == 3


@pytest.mark.parametrize(("quota", "cores"), [("-1", 8), ("200000", 2), ("50000", 1)])
@pytest.mark.parametrize("path", ["/", "/docker/1234"])
def test_version_1(quota: str, cores: int, path: str, tmp_path: Path) -> None:
    """A container sees its own group at the top, while the path may be that of the host."""
    write(
        tmp_path,
        {
            "proc/self/cgroup": f"5:memory:/\n4:cpu,cpuacct:{path}\n1:name=systemd:/\n0::/",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": quota,
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
        },
    )
    assert usable_cores(tmp_path) == cores


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="a system without affinity")
def test_cores_that_this_process_may_not_use_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep this thread to one core after the other, and then to as many as it had."""
    monkeypatch.undo()
    cores = os.sched_getaffinity(0)
    try:
        for core in cores:
            os.sched_setaffinity(0, {core})
            assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, cores)
    assert usable_cores(Path("/nowhere")) == len(cores)
