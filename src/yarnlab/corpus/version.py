"""Raised by hand with a change of what tokenizer or tokens come from the same text; all data is then made again, and
what follows from it where its content has changed."""

VERSION = 3
