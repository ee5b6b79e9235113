"""`python -m yarnlab`: the same as the `yarnlab` command, run by the warm process where there is one."""

import sys

from yarnlab.warm import hand_over

if __name__ == "__main__":
    code = hand_over(sys.argv[1:])
    if code is not None:
        sys.exit(code)

    from yarnlab.cli import main

    main()
