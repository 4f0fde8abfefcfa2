"""Boston housing prices of the 1970s; the data set has ethical problems: prefer `california_housing`."""

from __future__ import annotations

from .reading import Split, arrays, check_test_split, fetch, shuffled_split


def load_data(path: str = "boston_housing.npz", test_split: float = 0.2, seed: int = 113) -> Split:
    """(x_train, y_train), (x_test, y_test): 506 rows of 13 numbers, and prices in 1000 dollars, float64.

    Args:
        path: name of the file in the cache.
        test_split: the fraction for testing.
        seed: of the order of the rows.
    """
    check_test_split(test_split)
    file = fetch(path, "boston_housing.npz", "f553886a1f8d56431e820c5b82552d9d95cfcb96d1e678153f8839538947dff5")
    data = arrays(file)
    return shuffled_split(data["x"], data["y"], test_split, seed)


__all__ = ["load_data"]
