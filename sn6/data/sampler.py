"""Which crops a training looks at, and in what order: a function of (seed, epoch), also in the middle of an epoch."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Sampler


class EpochSampler(Sampler[tuple[int, int]]):
    """The order of the draws, a function of (seed, epoch) alone, dealt out so that N ranks see the batches of one.

    The draws are shuffled and wrapped around to whole batches. Of each batch every rank takes its equal share.
    Lightning calls `set_epoch`; the epoch travels with each draw, so that persistent workers need not be told.

    Args:
        draws: in an epoch
        batch_size: over all ranks
        seed: of the run
        rank: this process
        ranks: how many there are; they divide `batch_size`
    """

    def __init__(self, draws: int, batch_size: int, seed: int, rank: int = 0, ranks: int = 1) -> None:
        self.draws = draws
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.ranks = ranks
        self.epoch = 0
        self.skip = 0  # batches of the epoch that are left out

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before an epoch begins."""
        self.epoch = epoch

    @property
    def batches(self) -> int:
        """Of an epoch, the same on every rank."""
        return -(-self.draws // self.batch_size)

    def __len__(self) -> int:
        return self.batches * self.batch_size // self.ranks

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.draws)
        dealt = np.resize(order, (self.batches, self.ranks, self.batch_size // self.ranks))
        return iter((self.epoch, int(draw)) for draw in dealt[self.skip :, self.rank].ravel())


class ResumableLoader(DataLoader):
    """A DataLoader over an EpochSampler that goes on in the middle of an epoch.

    Lightning keeps `state_dict` in its checkpoints and loads it before the first epoch of a run that goes on.
    """

    sampler: EpochSampler
    given = 0  # batches of the epoch so far
    loaded: Mapping[str, int] | None = None

    def state_dict(self) -> dict[str, int]:
        """How many batches of which epoch were given out."""
        return {"epoch": self.sampler.epoch, "given": self.given}

    def load_state_dict(self, state_dict: Mapping[str, int]) -> None:
        """That epoch, if it comes again, begins after those batches."""
        self.loaded = state_dict

    def __iter__(self) -> Any:
        # A generator: the workers start with the first batch, when the sampler knows its epoch.
        is_same_epoch = self.loaded is not None and self.loaded["epoch"] == self.sampler.epoch
        self.given = self.sampler.skip = self.loaded["given"] if self.loaded and is_same_epoch else 0
        self.loaded = None
        for batch in super().__iter__():
            self.given += 1
            yield batch
