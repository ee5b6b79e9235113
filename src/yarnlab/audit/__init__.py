"""Whether a study's results are what was written, and how any number of them was made; nothing here writes a file."""
