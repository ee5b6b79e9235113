"""Pinned downloads from the hub, every byte verified; no repository's code is run and no pickle is loaded."""
