"""A mapping of short keys to numbers for many keys: sorted arrays, a fifth of the memory of a dict.

A dict takes 200 bytes for a key of 32 characters and its number, the arrays take 40.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

Keys = NDArray[np.bytes_]

_UNKNOWN = -1


def encode_keys(keys: Iterable[str]) -> Keys:
    """Return keys as an array; their first 32 characters count.

    Raises:
        TypeError: What was given has no items.
        ValueError: One of them is no ASCII text.
    """
    return np.fromiter(keys, "S32")


class KeyTable(Mapping[str, int]):
    """Numbers from 0 on by key.

    Room for the keys that are expected is made at once, since a new one moves all others.
    """

    def __init__(self, expected: Iterable[str] = ()) -> None:
        self._keys: Keys = np.unique(encode_keys(expected))
        self._numbers = np.full(len(self._keys), _UNKNOWN, np.int64)

    def __getitem__(self, key: str) -> int:
        """Return the number of a key."""
        number = int(self.find(encode_keys([key]))[0])
        if number == _UNKNOWN:
            raise KeyError(key)
        return number

    def __iter__(self) -> Iterator[str]:
        """Yield the keys that have a number."""
        return (key.decode("ascii") for key in self._keys[self._numbers != _UNKNOWN])

    def __len__(self) -> int:
        """Return how many keys have a number."""
        return int(np.count_nonzero(self._numbers != _UNKNOWN))

    @property
    def is_full(self) -> bool:
        """Whether every expected key has a number."""
        return len(self) == len(self._keys)

    def find(self, keys: Keys) -> NDArray[np.int64]:
        """Return the number of each key, -1 for one that has none."""
        numbers = np.full(len(keys), _UNKNOWN, np.int64)
        places, is_here = self._locate(keys)
        numbers[is_here] = self._numbers[places[is_here]]
        return numbers

    def lacks(self, keys: Keys) -> NDArray[np.bool_]:
        """Tell of each key whether it is expected and has no number."""
        _, is_here = self._locate(keys)
        is_here[self.find(keys) != _UNKNOWN] = False
        return is_here

    def first_unknown(self, keys: Keys) -> NDArray[np.bool_]:
        """Tell of each key whether it has no number and does not stand before in `keys`."""
        is_first = np.zeros(len(keys), np.bool_)
        is_first[np.unique(keys, return_index=True)[1]] = True
        is_first[self.find(keys) != _UNKNOWN] = False
        return is_first

    def fill(self, keys: Keys, numbers: NDArray[np.int64]) -> None:
        """Give keys their numbers, in the place of former ones."""
        _, is_here = self._locate(keys)
        if not is_here.all():
            former, known = self._keys, self._numbers
            self._keys = np.union1d(former, keys)
            self._numbers = np.full(len(self._keys), _UNKNOWN, np.int64)
            self._numbers[self._keys.searchsorted(former)] = known
        self._numbers[self._keys.searchsorted(keys)] = numbers

    def _locate(self, keys: Keys) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        """Return where each key stands, and whether it does."""
        places = self._keys.searchsorted(keys)
        is_here = places < len(self._keys)
        is_here[is_here] = self._keys[places[is_here]] == keys[is_here]
        return places, is_here
