"""The matplotlib package, which draws the charts without a display or global state, and the error if it is missing."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from lowered_cnn.arrays import InputError


def is_installed() -> bool:
    """Return whether the extra is installed, without importing it."""
    return find_spec("matplotlib") is not None


@contextmanager
def matplotlib_package(settings: dict[str, Any]) -> Iterator[ModuleType]:
    """Provide the package with its defaults and these settings, whatever the user's own are, and leave them alone.

    It writes caches where it can, and inside the `with` block says nothing on stderr about them.
    Raises InputError, which names the extra, if it is not installed.
    """
    logger = logging.getLogger("matplotlib")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of letters that its font lacks, which the page's font has
            try:
                import matplotlib
                import matplotlib.figure
            except ImportError as error:
                wanted = "the matplotlib package (pip install 'lowered-cnn[report]')"
                raise InputError("report", wanted, f"no module named {error.name}") from error
            defaults: dict[Any, Any] = dict(matplotlib.rcParamsDefault)
            del defaults["backend"]
            with matplotlib.rc_context(defaults | settings):
                yield matplotlib
    finally:
        logger.setLevel(level)
