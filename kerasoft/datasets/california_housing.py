"""California housing prices of 1990."""

from __future__ import annotations

from .reading import Split, arrays, check_test_split, fetch, shuffled_split


def load_data(
    version: str = "large", path: str = "california_housing.npz", test_split: float = 0.2, seed: int = 113
) -> Split:
    """(x_train, y_train), (x_test, y_test): 20,640 rows of 8 numbers, and median prices in dollars, float32.

    Args:
        version: "large", or "small" for the first 600 rows.
        path: name of the file in the cache.
        test_split: the fraction for testing.
        seed: of the order of the rows.
    """
    check_test_split(test_split)
    file = fetch(path, "california_housing.npz", "1a2e3a52e0398de6463aebe6f4a8da34fb21fbb6b934cf88c3425e766f2a1a6f")
    if version not in ("small", "large"):
        raise ValueError(f"Argument `version` must be one of 'small', 'large'. Received: version={version}")
    data = arrays(file)
    rows = slice(600) if version == "small" else slice(None)
    return shuffled_split(data["x"][rows], data["y"][rows], test_split, seed)


__all__ = ["load_data"]
