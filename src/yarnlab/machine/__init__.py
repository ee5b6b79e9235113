"""How fast this machine computes in which way, measured once, and what is chosen by it."""
