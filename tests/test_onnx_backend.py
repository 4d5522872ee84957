"""The official tests of ONNX's backend interface, those that come with the onnx package, for every operator claimed."""

import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx.backend.test.loader import load_model_tests
from onnx.backend.test.runner import Runner

from lowered_cnn import InputError
from lowered_cnn.interop.onnx import backend

KINDS = ("node", "pytorch-operator", "pytorch-converted")


@cache
def cases() -> dict[str, Any]:
    """Find the tests all of whose operators are claimed, by kind and name: they are computed, which takes seconds."""
    # Some tests of other operators are computed with overflow.
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        found = {f"{kind}/{case.name}": case for kind in KINDS for case in load_model_tests(kind=kind)}
    return {name: case for name, case in found.items() if operators(case) <= backend.OPERATORS.keys()}


def model_of(case: Any) -> Any:
    return onnx.load(Path(case.model_dir) / "model.onnx") if case.model is None else case.model


def operators(case: Any) -> set[str]:
    return {node.op_type for node in model_of(case).graph.node}


def data_of(case: Any) -> list[tuple[list[Any], list[Any]]]:
    """Return inputs and outputs, from memory or from files."""
    if case.data_sets is not None:
        return [(list(inputs), list(outputs)) for inputs, outputs in case.data_sets]
    folders = sorted(Path(case.model_dir).glob("test_data_set_*"))
    return [(read(folder, "input"), read(folder, "output")) for folder in folders]


def read(folder: Path, kind: str) -> list[Any]:
    paths = [folder / f"{kind}_{place}.pb" for place in range(len(list(folder.glob(f"{kind}_*.pb"))))]
    return [numpy_helper.to_array(onnx.TensorProto.FromString(path.read_bytes())) for path in paths]


def to_run() -> dict[str, Any]:
    return {name: case for name, case in cases().items() if case.name not in backend.EXCLUDED}


def run(case: Any) -> None:
    sets = data_of(case)
    assert sets
    for inputs, expected in sets:
        outputs = backend.prepare(model_of(case)).run(inputs)
        Runner.assert_similar_outputs(expected, outputs, rtol=case.rtol, atol=case.atol, model_dir=case.model_dir)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_official(kind: str) -> None:
    failed = {}
    for name, case in to_run().items():
        if name.startswith(kind):
            try:
                run(case)
            except Exception as error:
                failed[name] = repr(error)
    assert failed == {}


@pytest.mark.slow
def test_how_many_official_tests_are_run() -> None:
    """The figures of the documents: with another version of the onnx package there may be others."""
    assert len(cases()) - len(to_run()) == len(backend.EXCLUDED)
    assert len(to_run()) >= 580
    assert set.union(*map(operators, to_run().values())) == backend.OPERATORS.keys()


def test_the_interface_is_onnxs() -> None:
    node = onnx.helper.make_node("Relu", ["x"], ["y"], name="rectifier")
    x = np.array([-1.0, 2.0], np.float32)
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2]) for name in "xy"]
    graph = onnx.helper.make_graph([node], "graph", ends[:1], ends[1:])
    assert backend.run_model(onnx.helper.make_model(graph), [x])[0].tolist() == [0, 2]
    assert backend.supports_device("CPU")
    assert not backend.supports_device("CUDA")


def test_an_operator_that_is_not_claimed_is_told() -> None:
    node = onnx.helper.make_node("Sin", ["x"], ["y"], name="wave")
    kinds = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2]) for name in "xy"]
    graph = onnx.helper.make_graph([node], "graph", kinds[:1], kinds[1:])
    with pytest.raises(InputError, match=r"^node wave: expected one of Add, And, .*, got Sin$"):
        backend.prepare(onnx.helper.make_model(graph))
