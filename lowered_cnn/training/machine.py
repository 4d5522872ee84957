"""What the machine does to a training: the arithmetic that its bits depend on, and what is told meanwhile."""

from functools import cache

import numpy as np


@cache
def machine() -> str:
    """Return the versions and instruction sets in use: "openblas 0.3.30 SkylakeX, NumPy 2.3.5 with AVX512_SKX"."""
    from threadpoolctl import threadpool_info

    parts = [
        [str(library[key]) for key in ("internal_api", "version", "architecture") if library.get(key)]
        for library in threadpool_info()
        if library["user_api"] == "blas"
    ]
    blas = ", ".join(map(" ".join, parts)) or "unknown BLAS"
    instructions = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
    return f"{blas}, NumPy {np.__version__} with {' '.join(instructions) or 'its baseline'}"


def tell(line: str) -> None:
    """Log a warning, which Python prints on stderr unless the caller has configured logging otherwise."""
    import logging

    logging.getLogger("lowered_cnn").warning(line)
