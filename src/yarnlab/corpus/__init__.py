"""Text → documents of token ids → what training and evaluation read."""
