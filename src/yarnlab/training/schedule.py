"""The learning rate as a function of the step alone, so that it can't depend on the number of processes."""

from __future__ import annotations

import math


def learning_rate(
    step: int, *, lr: float, steps: int, warmup_steps: int, schedule: str, final_lr_share: float
) -> float:
    """The rate of optimizer step `step` = 0 … steps − 1.

    Linear warm-up that reaches `lr` at step `warmup_steps` − 1; then constant (the released Llama-2 models'
    schedule), or a cosine or a line that ends at final_lr_share·lr with the last step.
    """
    if step < warmup_steps:
        return lr * (step + 1) / warmup_steps
    if schedule == "constant":
        return lr
    progress = (step - warmup_steps) / max(1, steps - 1 - warmup_steps)
    if schedule == "linear":
        return lr * (1 - (1 - final_lr_share) * progress)
    return lr * (final_lr_share + (1 - final_lr_share) * (1 + math.cos(math.pi * progress)) / 2)
