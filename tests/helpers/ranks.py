"""The same function on one rank and on several: processes of their own, joined by gloo as Lightning joins them."""

import os
import socket
from collections.abc import Callable
from typing import Any

from helpers.stopping import SERVER


def free_port() -> int:
    """A port that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def call_here(rank: int, ranks: int, port: int, answers: Any, function: Callable[..., Any], args: tuple) -> None:
    """Calls `function(ranks, *args)` as one of the ranks."""
    import torch

    torch.set_num_threads(1)  # sums come out alike
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
    """What `function(ranks, *args)` returns on each rank."""
    answers, port = SERVER.Queue(), free_port()
    processes = [
        SERVER.Process(target=call_here, args=(rank, ranks, port, answers, function, args)) for rank in range(ranks)
    ]
    for process in processes:
        process.start()
    try:
        told = dict(answers.get(timeout=120) for _ in processes)
    finally:
        for process in processes:
            process.join(timeout=10)
            process.kill()
    return [told[rank] for rank in range(ranks)]
