"""What computing costs, in closed form: operations (`flops`), memory (`memory`), and what a device offers
(`devices`).

Two conventions of counting, both reported: *causal* counts attention over the lower triangle, which is what is
computed; *palm* counts the full square, as the PaLM paper and most published utilisation figures do.
"""

from yarnlab.cost.devices import DEVICES, PEAK_BF16, Device, peak_flops
from yarnlab.cost.flops import forward_flops, matmul_parameters, parameters, training_flops

__all__ = [
    "DEVICES",
    "PEAK_BF16",
    "Device",
    "forward_flops",
    "matmul_parameters",
    "parameters",
    "peak_flops",
    "training_flops",
]
