"""Whether a device computes in bfloat16. A CPU that only imitates it is up to 50 times slower than in float32."""

from typing import Any

import torch


def computes_in_bfloat16(device: str) -> bool:
    """Return whether a device (cpu, cuda or cuda:N) has instructions for bfloat16."""
    if not device.startswith("cpu"):
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16"))
