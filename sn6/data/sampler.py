"""Choose the crops of an epoch and their order: a function of (seed, epoch), also when resumed within an epoch."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Sampler


class EpochSampler(Sampler[tuple[int, int]]):
    """Yield the (epoch, draw) pairs of an epoch in an order that depends only on (seed, epoch).

    The draws are shuffled and wrapped around to full batches. Each rank takes an equal part of each batch, so that N
    ranks see the same batches as one. Lightning calls `set_epoch`; the epoch is part of each draw, so that persistent
    workers need not be informed of it.

    Args:
        draws: number of draws in an epoch
        batch_size: over all ranks
        seed: seed of the run
        rank: rank of this process
        ranks: number of ranks; it divides `batch_size`
        repeats: whether each epoch has the draws of the first one
    """

    def __init__(
        self, draws: int, batch_size: int, seed: int, rank: int = 0, ranks: int = 1, repeats: bool = False
    ) -> None:
        self.draws = draws
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.ranks = ranks
        self.repeats = repeats
        self.epoch = 0
        self.skip = 0  # batches at the beginning of the epoch that are left out

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; Lightning calls it before the epoch begins."""
        self.epoch = epoch

    @property
    def batches(self) -> int:
        """Return the number of batches of an epoch, which is equal on all ranks."""
        return -(-self.draws // self.batch_size)

    def __len__(self) -> int:
        return self.batches * self.batch_size // self.ranks

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch = 0 if self.repeats else self.epoch
        order = np.random.default_rng([self.seed, epoch]).permutation(self.draws)
        batches = np.resize(order, (self.batches, self.ranks, self.batch_size // self.ranks))
        return iter((epoch, int(draw)) for draw in batches[self.skip :, self.rank].ravel())


class ResumableLoader(DataLoader):
    """Load batches from an EpochSampler, and resume in the middle of an epoch.

    Lightning saves `state_dict` in its checkpoints and loads it before the first epoch of a resumed run.
    """

    sampler: EpochSampler
    given = 0  # batches of the epoch so far
    loaded: Mapping[str, int] | None = None

    def state_dict(self) -> dict[str, int]:
        """Return the epoch and how many of its batches were given to the trainer."""
        return {"epoch": self.sampler.epoch, "given": self.given}

    def load_state_dict(self, state_dict: Mapping[str, int]) -> None:
        """Skip those batches if the next epoch is the saved one."""
        self.loaded = state_dict

    def __iter__(self) -> Any:
        # A generator: the workers start with the first batch, when the sampler has its epoch.
        is_same_epoch = self.loaded is not None and self.loaded["epoch"] == self.sampler.epoch
        self.given = self.sampler.skip = self.loaded["given"] if self.loaded and is_same_epoch else 0
        self.loaded = None
        for batch in super().__iter__():
            self.given += 1
            yield batch
