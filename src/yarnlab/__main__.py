"""`python -m yarnlab`: the same as the `yarnlab` command."""

from yarnlab.cli import main

if __name__ == "__main__":
    main()
