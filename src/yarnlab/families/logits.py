"""What a model does to its hidden states until they are logits: head, bias, scale, soft-cap.

Logits are computed for a few positions at a time here, so a family's own `forward`, which computes them for all, is
gone round. That this module knows all there is between the two is checked when a model is adopted (parity.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from yarnlab.families.parts import head

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class LogitTransform:
    """cap·tanh(z/cap) of z = multiplier × what the head gives; without a cap z itself."""

    multiplier: float = 1.0
    softcap: float | None = None

    def __call__(self, logits: Tensor) -> Tensor:
        """Of the head's output, any shape; the same dtype."""
        if self.multiplier != 1.0:
            logits = logits * self.multiplier
        return logits if self.softcap is None else (logits / self.softcap).tanh() * self.softcap

    def chain(self, gradient: Tensor, logits: Tensor) -> Tensor:
        """The gradient by the head's output, from that by `logits`, the transformed ones. May overwrite both."""
        if self.softcap is not None:
            gradient = gradient.mul_(1 - logits.div_(self.softcap).square_())
        return gradient.mul_(self.multiplier) if self.multiplier != 1.0 else gradient


def transform_of(config: Any) -> LogitTransform:
    """What a model of this config does to the head's output, by the keys that its family has."""
    multiplier = 1.0
    if scaling := getattr(config, "logits_scaling", None):  # Granite
        multiplier /= float(scaling)
    for key in ("logit_scale", "lm_head_multiplier"):  # Cohere; Falcon-H1
        if (factor := getattr(config, key, None)) is not None:
            multiplier *= float(factor)
    cap = getattr(config, "final_logit_softcapping", None)  # Gemma 2, nanochat
    return LogitTransform(multiplier, None if cap is None else float(cap))


def logits_of(model: PreTrainedModel, hidden: Tensor) -> Tensor:
    """Logits of hidden states (…, hidden_size): (…, vocabulary), in the head's dtype or the caller's autocast."""
    return transform_of(model.config)(head(model)(hidden))
