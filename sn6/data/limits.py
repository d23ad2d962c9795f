"""How many tiles a limit of batches leaves, counted over all ranks."""

from sn6.errors import UserError


def limited_tiles(tiles: int, batch_size: int, limit: int | float, key: str) -> int:
    """Return how many of `tiles` are evaluated, on all ranks together.

    Args:
        tiles: their number
        batch_size: tiles of a batch
        limit: int, a number of batches; float, a fraction of them, rounded down
        key: of the limit, for messages

    Raises:
        UserError: the fraction is less than one batch
    """
    batches = -(-tiles // batch_size)
    limited = int(limit * batches) if isinstance(limit, float) else limit
    if batches and limit > 0 and limited == 0:
        raise UserError(
            f"{key}={limit} is less than one of {batches} batches; set an int, {1 / batches:.3g} or more, or null for "
            "all",
            kind="invalid_value",
            key=key,
            value=limit,
        )
    return min(tiles, limited * batch_size)
