"""`python -m yarnlab`: the same as the `yarnlab` command, run by the fork server where there is one."""

import sys

from yarnlab.fork_server import delegate
from yarnlab.processes import hold_environment

if __name__ == "__main__":
    hold_environment()
    code = delegate(sys.argv[1:])
    if code is not None:
        sys.exit(code)

    from yarnlab.cli import main

    main()
