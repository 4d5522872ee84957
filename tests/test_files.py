"""Files that are whole or absent: damaged ones are refused, full disks and killed writers leave the old one."""

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from running import normal
from safetensors import safe_open
from safetensors.numpy import save_file

from lowered_cnn import BatchNorm, Conv2D, Dense, Flatten, InputError, Network, Sequential, load, save
from lowered_cnn.layers.container import LEVELS
from lowered_cnn.storage import CHECKSUM, HEADER, read_checked, write_checked, write_whole

NETWORK = Network(Sequential(Conv2D(2, 2), BatchNorm(), Flatten(), Dense(2)), (1, 3, 3), seed=3)
DENSE = {"layer": "Dense", "units": 2, "bias": False}
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="limits, locks and mounts of Linux")


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a small network."""
    path = tmp_path_factory.mktemp("sound") / "network"
    save(NETWORK, path)
    return path


def same(one: Network, other: Network) -> bool:
    return (one.model, one.input_shape, one.input_range) == (other.model, other.input_shape, other.input_range) and (
        one.parameters.vector.tobytes() == other.parameters.vector.tobytes()
    )


def refused_or_same(path: Path, content: bytes) -> bool:
    """Return whether a file with this content is refused; raises AssertionError if another network is read."""
    path.write_bytes(content)
    try:
        network = load(path)
    except InputError:
        return True
    assert same(network, NETWORK)
    return False


def flipped(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_a_bit_flipped_in_any_byte_is_noticed(sound: Path, tmp_path: Path) -> None:
    content = sound.read_bytes()
    bits = 8 * np.arange(len(content)) + np.random.default_rng(0).integers(0, 8, len(content))
    assert sum(refused_or_same(tmp_path / "x", flipped(content, int(bit))) for bit in bits) > 0.99 * len(content)


@pytest.mark.slow
def test_a_flip_of_any_bit_is_noticed(sound: Path, tmp_path: Path) -> None:
    content = sound.read_bytes()
    assert sum(refused_or_same(tmp_path / "x", flipped(content, bit)) for bit in range(8 * len(content))) > 0


def test_a_file_cut_short_or_continued_is_refused(sound: Path, tmp_path: Path) -> None:
    content = sound.read_bytes()
    for length in range(len(content)):
        assert refused_or_same(tmp_path / "x", content[:length])
    assert refused_or_same(tmp_path / "x", content + b"\0")


@given(st.data())
def test_whatever_is_overwritten_moved_or_removed_is_noticed(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged"
    save(NETWORK, path)
    content = path.read_bytes()
    start, stop = sorted(data.draw(st.tuples(*[st.integers(0, len(content))] * 2)))
    other = data.draw(st.one_of(st.binary(max_size=64), st.sampled_from([content[stop:], content[:start]])))
    refused_or_same(path, content[:start] + other + content[stop:])


def rewritten(source: Path, target: Path, change: Callable[[dict[str, str], dict[str, Any]], object]) -> Path:
    """Write a file again with other metadata or tensors."""
    with safe_open(source, "numpy") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(metadata, tensors)
    save_file(tensors, target, metadata)
    return target


def without(metadata: dict[str, str], *names: str) -> None:
    """Take entries out of the header."""
    header = json.loads(metadata[HEADER])
    metadata[HEADER] = json.dumps({name: value for name, value in header.items() if name not in names})


def exchange(tensors: dict[str, Any]) -> None:
    tensors["conv1.bias"], tensors["dense1.bias"] = tensors["dense1.bias"] + 1, tensors["conv1.bias"]


CHANGES: dict[str, tuple[Callable[[dict[str, str], dict[str, Any]], object], str]] = {
    "numbers of another tensor": (lambda metadata, tensors: exchange(tensors), "expected the checksum"),
    "no checksum": (lambda metadata, tensors: without(metadata, CHECKSUM), "expected a checksum, got none"),
    "no format": (lambda metadata, tensors: without(metadata, "format"), "expected the checksum"),
    "a later format": (
        lambda metadata, tensors: metadata.update({HEADER: metadata[HEADER].replace('"format": 1', '"format": 2')}),
        "expected format 1, or a newer lowered_cnn to read it, got format 2",
    ),
    "another initial number": (
        lambda metadata, tensors: metadata.update({HEADER: metadata[HEADER].replace("0.1", "0.2")}),
        "expected the checksum",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_file_changed_with_other_tools_is_refused(name: str, sound: Path, tmp_path: Path) -> None:
    change, told = CHANGES[name]
    with pytest.raises(InputError) as caught:
        load(rewritten(sound, tmp_path / "x", change))
    assert str(caught.value).startswith(f"{tmp_path / 'x'}: {told}")


def test_files_of_earlier_versions_are_read(sound: Path, tmp_path: Path) -> None:
    old = rewritten(sound, tmp_path / "old", lambda metadata, tensors: without(metadata, CHECKSUM, "format"))
    assert same(load(old), NETWORK)


@pytest.mark.parametrize("dtype", [np.int32, np.uint8, np.bool_, np.float16, np.float64])
def test_numbers_of_another_type_are_not_converted(dtype: Any, sound: Path, tmp_path: Path) -> None:
    def change(metadata: dict[str, str], tensors: dict[str, Any]) -> None:
        without(metadata, CHECKSUM, "format")
        tensors["conv1.bias"] = tensors["conv1.bias"].astype(dtype)

    with pytest.raises(InputError, match=rf"conv1.bias: expected float32, got {np.dtype(dtype)}$"):
        load(rewritten(sound, tmp_path / "x", change))


@given(
    st.dictionaries(st.text(max_size=5), st.integers() | st.floats(allow_nan=False) | st.text() | st.booleans()),
    st.dictionaries(
        st.text(min_size=1, max_size=5).filter(lambda name: name != "__metadata__"),
        st.sampled_from(["<f4", ">f4", "<f8", "<i8", "u1", "?"]).flatmap(
            lambda dtype: st.sampled_from([(), (0,), (3,), (2, 3)]).map(
                lambda shape: np.asarray(normal(*shape) * 100).astype(dtype).T
            )
        ),
        max_size=3,
    ),
)
def test_any_header_and_tensors_come_back(
    tmp_path_factory: pytest.TempPathFactory, header: dict[str, Any], tensors: dict[str, Any]
) -> None:
    path = tmp_path_factory.getbasetemp() / "checked"
    header.pop("format", None)
    write_checked(path, header, tensors)
    again, values = read_checked(path)
    assert json.dumps(again, sort_keys=True) == json.dumps(header, sort_keys=True)
    assert values.keys() == tensors.keys()
    for name, array in tensors.items():
        assert (values[name].dtype, values[name].shape) == (array.dtype.newbyteorder("="), array.shape)
        np.testing.assert_array_equal(values[name], array)


def described(path: Path, model: object, **others: object) -> str:
    """Write a file without a checksum that describes this model, and return why it is refused."""
    header = {"model": model, "input_shape": [3], "dtype": "float32", **others}
    save_file({"dense1.weight": np.zeros((2, 3), np.float32)}, path, {HEADER: json.dumps(header)})
    with pytest.raises(InputError) as caught:
        load(path)
    return str(caught.value)


def nested(layer: object, levels: int) -> object:
    for _ in range(levels):
        layer = {"layer": "Sequential", "layers": [layer]}
    return layer


@pytest.mark.parametrize("levels", [LEVELS + 1, 2 * LEVELS])
def test_layers_nested_too_deep_are_refused(levels: int, tmp_path: Path) -> None:
    assert f"expected at most {LEVELS} levels, got more" in described(tmp_path / "x", nested(DENSE, levels))


def test_a_name_that_stands_twice_is_refused(tmp_path: Path) -> None:
    header = '{"model": null, "dtype": "float32", "dtype": "float64"}'
    save_file({}, tmp_path / "x", {HEADER: header})
    with pytest.raises(InputError, match="expected a header in JSON, got header: expected each name once"):
        load(tmp_path / "x")


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        ({"layer": "Dense", "units": 10**9}, [3]),
        ({"layer": "Dense", "units": 10**90}, [3]),
        ({"layer": "Dense", "units": 10**4000}, [3]),
        ({"layer": "Conv2D", "filters": 1, "kernel": 10**9}, [1, 3, 3]),
        ({"layer": "Conv2D", "filters": 1, "kernel": 10**90, "padding": 10**90}, [1, 3, 3]),
        ({"layer": "ConvTranspose2D", "filters": 1, "kernel": 1, "stride": 10**90}, [1, 3, 3]),
        ({"layer": "Pad", "padding": 10**90}, [1, 3, 3]),
        ({"layer": "ReLU"}, [10**90]),
        ({"layer": "Flatten"}, [1] * 10**5),
        ({"layer": "Pad"}, [10**90] * 10**3),
    ],
    ids=lambda value: str(value)[:60],
)  # fmt: skip
def test_gigantic_numbers_are_refused_and_not_allocated(layer: object, shape: list[int], tmp_path: Path) -> None:
    told = described(tmp_path / "x", {"layer": "Sequential", "layers": [layer]}, input_shape=shape)
    assert told.startswith(f"{tmp_path / 'x'}: ")
    assert "\n" not in told


@pytest.mark.parametrize("length", [2**63, 2**64 - 1, 10**9, 99_999_999, 9])
def test_a_header_of_a_length_that_the_file_lacks_is_refused(length: int, sound: Path, tmp_path: Path) -> None:
    assert refused_or_same(tmp_path / "x", length.to_bytes(8, "little") + sound.read_bytes()[8:])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes of POSIX")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="expected a safetensors file, got no file"):
        load(tmp_path / "pipe")


# How files are written.


def test_the_content_is_on_the_disk_before_it_takes_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[object] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: done.append(stat.S_ISDIR(os.fstat(descriptor).st_mode)))
    replace = Path.replace
    monkeypatch.setattr(Path, "replace", lambda *paths: (done.append("replace"), replace(*paths)))  # type: ignore[func-returns-value]
    write_whole(tmp_path / "file", b"content")
    assert done == [False, "replace", True]


@LINUX
def test_a_new_file_has_the_usual_permissions_and_an_old_one_keeps_its_own(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_whole(tmp_path / "new", b"")
        (tmp_path / "old").touch()
        (tmp_path / "old").chmod(0o604)
        write_whole(tmp_path / "old", b"")
    finally:
        os.umask(before)
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("new", "old")] == [0o640, 0o604]


def test_links_stay_and_one_that_leads_to_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "folder" / "second")
    (tmp_path / "folder" / "second").symlink_to("target")
    write_whole(tmp_path / "link", b"content")
    assert (tmp_path / "folder" / "target").read_bytes() == b"content"
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "folder" / "second").is_symlink()
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(InputError, match="output: expected a file to write"):
        write_whole(tmp_path / "loop", b"content")
    assert (tmp_path / "loop").is_symlink()


WRITE = """
import os, resource, sys, time
from pathlib import Path
from lowered_cnn.storage import write_whole
path, size = Path(sys.argv[1]), int(sys.argv[2])
{before}
try:
    write_whole(path, bytes(size))
except OSError as error:
    print(error.errno, error.filename == str(path), path.read_bytes(), os.listdir(path.parent))
"""


def written(path: Path, size: int, *, before: str = "") -> str:
    """Write that many bytes in a process of its own, and return what it said."""
    command = [sys.executable, "-c", WRITE.format(before=before), str(path), str(size)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@LINUX
def test_a_file_beyond_the_limit_leaves_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    limit = "resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))"
    assert written(tmp_path / "file", 10_001, before=limit) == "27 True b'old' ['file']\n"
    assert written(tmp_path / "file", 10_000, before=limit) == ""
    assert (tmp_path / "file").read_bytes() == bytes(10_000)


@LINUX
@pytest.mark.parametrize(("size", "number", "options"), [(100_000, 28, "size=64k"), (1, 30, "ro,remount,size=64k")])
def test_a_full_disk_and_a_read_only_one_leave_the_old_file(
    size: int, number: int, options: str, tmp_path: Path
) -> None:
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-rm", "true"], check=False, capture_output=True).returncode:
        pytest.skip("no permission to mount a file system")
    write = WRITE.format(before="")
    script = f'mount -t tmpfs -o size=64k tmpfs "$1" && printf old > "$1/file" && mount -o remount,{options} "$1"'
    script += ' && "$2" -c "$3" "$1/file" "$4"'
    command = [unshare, "-rm", "sh", "-c", script, "sh", str(tmp_path), sys.executable, write, str(size)]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    assert result.stdout == f"{number} True b'old' ['file']\n"


@pytest.fixture
def stopped(tmp_path: Path) -> Iterator[tuple[Path, subprocess.Popen[str]]]:
    """Start a writer that stands still before its file takes the name."""
    (tmp_path / "file").write_text("old")
    wait = "os.fsync = lambda descriptor: (print('written', flush=True), time.sleep(600))"
    command = [sys.executable, "-c", WRITE.format(before=wait), str(tmp_path / "file"), "1000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "written\n"
        yield tmp_path / "file", process
        process.kill()


@LINUX
def test_what_a_killed_writer_leaves_is_removed_but_not_what_one_at_work_has(
    stopped: tuple[Path, subprocess.Popen[str]],
) -> None:
    path, process = stopped
    [part] = path.parent.glob(".*.part")
    others = [path.with_name(name) for name in (".file.part", ".file.my.part", ".file2.12ab.part", "file.12.part")]
    for other in others:
        other.touch()
    write_whole(path, b"new")
    assert part.exists()
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (part.stat().st_size, path.read_bytes()) == (1000, b"new")
    write_whole(path, b"newer")
    assert not part.exists()
    assert sorted(path.parent.iterdir()) == sorted([path, *others])


def test_an_interrupted_writer_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("old")

    def interrupt(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_whole(tmp_path / "file", b"new")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file", "old")]


MANY = """
import sys
from lowered_cnn import Dense, Network, save
network = Network(Dense(200), (200,), seed=int(sys.argv[2]))
for _ in range(40):
    save(network, sys.argv[1])
"""


def test_of_many_writers_at_once_one_wins_whole(tmp_path: Path) -> None:
    networks = [Network(Dense(200), (200,), seed=seed) for seed in range(3)]
    path = tmp_path / "network"
    save(networks[0], path)
    commands = [[sys.executable, "-c", MANY, str(path), str(seed)] for seed in range(3)]
    processes = [subprocess.Popen(command) for command in commands]
    while any(process.poll() is None for process in processes):
        found = load(path)
        assert any(same(found, network) for network in networks)
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert list(tmp_path.iterdir()) == [path]


def test_the_same_network_is_the_same_file(tmp_path: Path) -> None:
    """In whatever process it is written: the order of a safetensors file's metadata would depend on that."""
    program = f"from test_files import NETWORK, save; save(NETWORK, {str(tmp_path / 'there')!r})"
    for _ in range(4):
        subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parent)
        save(NETWORK, tmp_path / "here")
        assert (tmp_path / "there").read_bytes() == (tmp_path / "here").read_bytes()
