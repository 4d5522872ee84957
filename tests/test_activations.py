"""Activations at the edges: small numbers exact in their own last places, large ones, infinities, no numbers."""

import math
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from running import run
from scipy import special

from lowered_cnn import (
    ELU,
    GELU,
    Layer,
    LeakyReLU,
    Network,
    Sequential,
    Sigmoid,
    SiLU,
    Tanh,
)
from lowered_cnn.arrays import Array
from lowered_cnn.layers.erf import erfc

Numbers = npt.NDArray[np.float64]
Terms = Callable[[Numbers], tuple[Numbers, ...]]
"""The terms of which a value is the sum: it is exact relative to them, for their sum may pass through 0."""


def phi(x: Numbers) -> Numbers:
    """Return the standard normal distribution; exp(-x^2 / 2) is rounded once, where ndtr squares what is rounded."""
    tail: Numbers = np.exp(-x * x / 2) * special.erfcx(np.abs(x) / math.sqrt(2)) / 2
    return np.select([x < 0], [tail], 1 - tail)


def density(x: Numbers) -> Numbers:
    height: Numbers = np.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    return height


def bell(x: Numbers) -> Numbers:
    height: Numbers = special.expit(x) * special.expit(-x)
    return height


def logistic(x: Numbers) -> Numbers:
    """Return the sigmoid; SciPy's is 0 where it is subnormal."""
    power: Numbers = np.exp(-np.logaddexp(0, -x))
    return power


def inner(x: Numbers) -> Numbers:
    """Return what the approximate GELU is the sigmoid of."""
    return math.sqrt(8 / math.pi) * (x + 0.044715 * x**3)


def slope(x: Numbers) -> Numbers:
    """Return the derivative of `inner`."""
    return math.sqrt(8 / math.pi) * (1 + 3 * 0.044715 * x * x)


def below(x: Numbers) -> Numbers:
    return np.minimum(x, 0)


FUNCTIONS: list[tuple[Layer, Terms, Terms]] = [
    (Sigmoid(), lambda x: (special.expit(x),), lambda x: (bell(x),)),
    (Tanh(), lambda x: (np.tanh(x),), lambda x: (4 * bell(2 * x),)),
    (SiLU(), lambda x: (x * special.expit(x),), lambda x: (special.expit(x), x * bell(x))),
    (
        ELU(0.7),
        lambda x: (np.where(x > 0, x, 0.7 * special.expm1(below(x))),),
        lambda x: (np.where(x > 0, 1, 0.7 * np.exp(below(x))),),
    ),
    (LeakyReLU(0.3), lambda x: (np.where(x > 0, x, 0.3 * x),), lambda x: (np.where(x > 0, 1, 0.3),)),
    (GELU(), lambda x: (x * phi(x),), lambda x: (phi(x), x * density(x))),
    (
        GELU(approximate=True),
        lambda x: (x * logistic(inner(x)),),
        lambda x: (logistic(inner(x)), x * logistic(inner(x)) * logistic(-inner(x)) * slope(x)),
    ),
]


def numbers(dtype: Any) -> Array:
    """Return numbers from -100 to 100, and from the smallest normal ones to 1, of both signs."""
    small = np.geomspace(np.finfo(dtype).tiny, 1, 301)
    return np.concatenate([np.linspace(-100, 100, 20001), small, -small]).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("layer", "value", "derivative"), FUNCTIONS, ids=[repr(layer) for layer, _, _ in FUNCTIONS])
def test_every_number_is_exact_in_its_own_last_places(
    layer: Layer, value: Terms, derivative: Terms, dtype: Any
) -> None:
    """4 units in the last place, or a step between subnormal numbers, multiplied by x, or by x^3 as in GELU.

    For GELU in float64, 4 units more for the polynomial of erfc, and 3 E for the rounding, both here and there, of the
    exponent E of a power.
    """
    x = numbers(dtype)
    wide = x.astype(np.float64)
    ours = run(layer, x[None])
    units = np.full(x.size, 4.0)
    if isinstance(layer, GELU) and dtype == np.float64:
        units += 4 + 3 * np.abs(inner(wide) if layer.approximate else wide * wide / 2)
    limits = np.finfo(dtype)
    for got, terms in ((ours.y[0], value(wide)), (ours.dx[0], derivative(wide))):
        size = sum(np.abs(term) for term in terms)
        bound = units * limits.eps * size + (1 + np.abs(wide)) ** 3 * float(limits.smallest_subnormal)
        assert got.dtype == dtype
        assert (np.abs(got - sum(terms)) <= bound).all()


@pytest.mark.parametrize("layer", [Sigmoid(), SiLU(), ELU(), ELU(0.7), Tanh(), LeakyReLU(0.1)], ids=repr)
def test_activations_are_pytorchs_in_the_last_places_of_float32(layer: Layer) -> None:
    """Where PyTorch is exact: its sigmoid is 0 below -88, and its 1 - y cancels above 0."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    x = np.linspace(-88, 88, 8801, dtype=np.float32)
    module = {
        "elu": torch.nn.ELU(getattr(layer, "alpha", 1.0)),
        "leaky_relu": torch.nn.LeakyReLU(getattr(layer, "slope", 0.1)),
        "sigmoid": torch.nn.Sigmoid(), "silu": torch.nn.SiLU(), "tanh": torch.nn.Tanh(),
    }[layer.kind]  # fmt: skip
    theirs = torch.tensor(x, requires_grad=True)
    y = module(theirs)
    y.sum().backward()
    ours = run(layer, x[None])
    np.testing.assert_allclose(ours.y[0], y.detach().numpy(), rtol=1e-6, atol=1e-43)
    rising = x < 0 if isinstance(layer, Sigmoid | ELU) else np.abs(x) < 1
    np.testing.assert_allclose(ours.dx[0][rising], theirs.grad.numpy()[rising], rtol=1e-6, atol=1e-43)


INFINITY, NAN = math.inf, math.nan


@pytest.mark.parametrize(
    ("layer", "name", "options", "y", "dx"),
    [
        (Sigmoid(), "Sigmoid", {}, [1, 0, NAN], [0, 0, NAN]),
        (Tanh(), "Tanh", {}, [1, -1, NAN], [0, 0, NAN]),
        (SiLU(), "SiLU", {}, [INFINITY, NAN, NAN], [NAN, NAN, NAN]),
        (ELU(0.5), "ELU", {"alpha": 0.5}, [INFINITY, -0.5, NAN], [1, 0, NAN]),
        (LeakyReLU(0.5), "LeakyReLU", {"negative_slope": 0.5}, [INFINITY, -INFINITY, NAN], [1, 0.5, 0.5]),
        (LeakyReLU(0), "LeakyReLU", {"negative_slope": 0}, [INFINITY, NAN, NAN], [1, 0, 0]),
        # PyTorch's derivatives are NaN here, and one of its outputs: ours are the limits.
        (GELU(), "", {}, [INFINITY, NAN, NAN], [1, 0, NAN]),
        (GELU(approximate=True), "", {}, [INFINITY, NAN, NAN], [1, 0, NAN]),
    ],
)
def test_infinities_and_what_is_no_number(
    layer: Layer, name: str, options: Any, y: list[float], dx: list[float]
) -> None:
    x = np.array([[INFINITY, -INFINITY, NAN]], np.float32)
    with np.errstate(invalid="ignore"):
        ours = run(layer, x)
    np.testing.assert_array_equal(ours.y[0], np.array(y, np.float32))
    np.testing.assert_array_equal(ours.dx[0], np.array(dx, np.float32))
    if name:
        torch = pytest.importorskip("torch", reason="PyTorch is not installed")
        theirs = getattr(torch.nn, name)(**options)(torch.tensor(x)).numpy()
        np.testing.assert_array_equal(ours.y, theirs)


@pytest.mark.parametrize("layer", [layer for layer, _, _ in FUNCTIONS], ids=repr)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_largest_and_smallest_numbers_do_not_overflow(layer: Layer, dtype: Any) -> None:
    limits = np.finfo(dtype)
    ends = [limits.max, limits.tiny, limits.smallest_subnormal, 0]
    ours = run(layer, np.array([[*ends, *(-end for end in ends)]], dtype))
    assert ours.y.dtype == ours.dx.dtype == dtype
    assert np.isfinite(ours.y).all()
    assert np.isfinite(ours.dx).all()


def test_erfc_is_scipys() -> None:
    x = np.concatenate([np.linspace(-7, 26, 33001), [-1e300, 1e300, 5e-324, 0.0, INFINITY, -INFINITY, NAN]])
    units = 8 + np.clip(x, -30, 30) ** 2
    error = np.abs(erfc(x) - special.erfc(x))
    np.testing.assert_array_equal(np.isnan(error), np.isnan(x))
    assert (error <= units * np.finfo(np.float64).eps * special.erfc(x) + 5e-324)[:-1].all()


@pytest.mark.slow
@pytest.mark.parametrize("layer", [layer for layer, _, _ in FUNCTIONS], ids=repr)
def test_what_is_computed_on_the_way_is_small(layer: Layer) -> None:
    x = np.ones((500_000, 8), np.float32)
    lowered = Network(Sequential(layer), x.shape[:1]).lower(8, wants_dx=True).layers
    dy = x.copy()
    lowered.forward(x)
    lowered.backward(dy)
    tracemalloc.start()
    lowered.forward(x)
    lowered.backward(dy)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < x.nbytes / 10
