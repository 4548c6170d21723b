"""Class-balanced order of labeled images: every class as often as every other, however many images it has."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]


class BalancedStream:
    """Endless draws of labeled images, classes in turn; the interface of `batches.EpochStream`.

    Every block of C draws holds one image of each of the C classes, in a random order of the classes. Within a class,
    endless passes over its images, each pass in its own random order. Images of rare classes come more often. Draws
    are a pure function of (seed, name, labels, position): resume needs no state.

    Args:
        labels: `(L,)` class ids of the images, any integers; classes without an image are not drawn.
        seed: >= 0.
        name: distinguishes streams of the same seed.

    Raises:
        ValueError: no labels.

    >>> stream = BalancedStream(np.array([0, 0, 0, 7]), seed=0, name="labeled")
    >>> items, passes = stream.take(0, 6)
    >>> len(items[items == 3]), sorted(items[items < 3].tolist()), passes[items == 3].tolist()
    (3, [0, 1, 2], [0, 1, 2])
    """

    def __init__(self, labels: Indices, *, seed: int, name: str) -> None:
        if len(labels) == 0:
            raise ValueError("expected at least one label, got none")
        _, classes = np.unique(labels, return_inverse=True)
        self._members = np.split(np.argsort(classes, kind="stable"), np.cumsum(np.bincount(classes))[:-1])
        self._entropy = [seed, *name.encode()]
        # The last order made for each class; drawing it anew for every batch would cost as much as a whole pass.
        self._orders: dict[int, tuple[int, Indices]] = {}

    def take(self, start: int, count: int) -> tuple[Indices, Indices]:
        """Items `(count,)` number start .. start + count of the stream, and how often each was drawn before."""
        positions = np.arange(start, start + count, dtype=np.int64)
        blocks, slots = np.divmod(positions, len(self._members))
        items, passes = np.empty(count, dtype=np.int64), np.empty(count, dtype=np.int64)
        for block in np.unique(blocks).tolist():
            here = blocks == block
            turns = np.random.default_rng([*self._entropy, 0, block]).permutation(len(self._members))[slots[here]]
            # A class is drawn once in every block, so this is draw number `block` of each.
            passes[here] = [block // len(self._members[turn]) for turn in turns]
            items[here] = [self._draw(int(turn), block) for turn in turns]
        return items, passes

    def _draw(self, turn: int, number: int) -> int:
        """Draw number `number` of a class."""
        members = self._members[turn]
        round_number, place = divmod(number, len(members))
        known, order = self._orders.get(turn, (-1, members))
        if known != round_number:
            order = np.random.default_rng([*self._entropy, 1, turn, round_number]).permutation(members)
            self._orders[turn] = (round_number, order)
        return int(order[place])
