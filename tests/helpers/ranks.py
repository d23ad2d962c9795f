"""Call a function on one rank and on several: in processes of their own, joined by gloo as Lightning joins them."""

import os
import socket
from collections.abc import Callable
from typing import Any

from helpers.stopping import SERVER


def free_port() -> int:
    """Return a port that no process uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def call_as_rank(rank: int, ranks: int, port: int, answers: Any, function: Callable[..., Any], args: tuple) -> None:
    """Call `function(ranks, *args)` in this process as one of the ranks, and put the result in `answers`."""
    import torch

    torch.set_num_threads(1)  # the same order of sums in each process
    if ranks > 1:
        os.environ |= {
            "LOCAL_RANK": str(rank),
            "NODE_RANK": "0",
            "WORLD_SIZE": str(ranks),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
    answers.put((rank, function(ranks, *args)))


def on_ranks(function: Callable[..., Any], ranks: int, *args: Any) -> list[Any]:
    """Return what `function(ranks, *args)` returns on each rank."""
    answers, port = SERVER.Queue(), free_port()
    processes = [
        SERVER.Process(target=call_as_rank, args=(rank, ranks, port, answers, function, args)) for rank in range(ranks)
    ]
    for process in processes:
        process.start()
    try:
        by_rank = dict(answers.get(timeout=120) for _ in processes)
    finally:
        for process in processes:
            process.join(timeout=10)
            process.kill()
    return [by_rank[rank] for rank in range(ranks)]
