"""Whether a device computes faster in bfloat16 than in float32.

A CPU that only imitates it is up to 50 times slower. An Intel CPU with AVX-512 but without AMX has instructions for it,
with which a training step takes 1.5 to 1.7 times as long as in float32; an AMD EPYC with the same instructions takes
less than half the time (benchmarks/RESULTS.md).
"""

from typing import Any

import torch


def is_fast_in_bfloat16(device: str) -> bool:
    """Return whether a device (cpu, cuda or cuda:N) computes faster in bfloat16 than in float32."""
    if not device.startswith("cpu"):
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    if capabilities.get("amx_bf16"):
        return True
    return bool(capabilities.get("avx512_bf16")) and "Intel" not in capabilities.get("cpu_name", "")
