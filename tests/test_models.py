"""The named networks: which images they fit."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lowered_cnn import InputError, Network, summary
from lowered_cnn.models import MODELS, adaptive, model_for
from lowered_cnn.training import ADAPTIVE


@settings(deadline=None)
@given(st.integers(1, 4), st.integers(1, 400), st.integers(1, 400), st.integers(1, 30))
def test_adaptive_fits_images_of_any_size(channels: int, height: int, width: int, classes: int) -> None:
    shape = (channels, height, width)
    model = adaptive(classes, shape)
    shapes = [inside for _, _, inside in model.steps(shape)]
    assert model.output_shape(shape, "") == (classes,)
    assert 1 <= min(shapes[-2][1:]) <= max(shapes[-2][1:]) <= 8


def test_the_cost_of_adaptive_grows_more_slowly_than_the_pictures() -> None:
    small, large = (summary(Network(adaptive(10, (3, side, side)), (3, side, side))).flops for side in (32, 256))
    assert large < 20 * small  # of 64 times the pixels


@pytest.mark.parametrize("name", sorted(MODELS.keys() - {"adaptive"}))
def test_models_for_28_pixels_name_the_one_that_fits_others(name: str) -> None:
    assert model_for(name, 3, (1, 28, 28)) == MODELS[name](3)
    if name not in ("keras_mnist", "notebook", "pytorch_mnist"):
        with pytest.raises(InputError) as caught:
            model_for(name, 3, (1, 8, 6))
        wanted = "larger images (the network that fits any size is adaptive)"
        assert str(caught.value) == f"{name}: images: expected {wanted}, got 8x6 pixels (HxW)"


def test_features_are_refused() -> None:
    for name in ("compact", "adaptive"):
        with pytest.raises(InputError, match=r"expected shape \(C, H, W\), got \(5,\)"):
            model_for(name, 3, (5,))


@pytest.mark.parametrize(("examples", "epochs"), [(30, 60), (1000, 50), (3000, 18), (60_000, 8)])
def test_small_data_are_seen_more_often(examples: int, epochs: int) -> None:
    assert ADAPTIVE.at_least(800, 60, examples).epochs == epochs
