"""Raised by hand with a change of what a fetched asset is on disk; every asset is then verified and written again."""

VERSION = 1
