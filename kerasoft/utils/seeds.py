"""One seed for everything that draws random numbers on the host."""

from __future__ import annotations


def set_random_seed(seed: int) -> None:
    """Seeds Python's, NumPy's and kerasoft's random numbers: initial weights, dropout and shuffling repeat.

    >>> import kerasoft as ks
    >>> set_random_seed(7)
    >>> first = ks.random.normal((2,))
    >>> set_random_seed(7)
    >>> bool((ks.random.normal((2,)) == first).all())
    True
    """
    import random as python_random

    import numpy as np

    from .. import random

    if not isinstance(seed, int):
        raise ValueError(f"Expected `seed` argument to be an integer. Received: seed={seed} (of type {type(seed)})")
    python_random.seed(seed)
    np.random.seed(seed)
    random.reset_global_seed()
