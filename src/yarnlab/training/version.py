"""The version of training's numerics. Bump it, in a commit of its own, when the same study and seed would give other
weights: rows, initialisation, loop, schedule, attention. Every model is then trained again."""

VERSION = 3
