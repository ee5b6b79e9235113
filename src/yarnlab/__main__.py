"""`python -m yarnlab`: the same as the `yarnlab` command, run by the fork server where there is one."""

import sys

from yarnlab.fork_server import delegate

if __name__ == "__main__":
    code = delegate(sys.argv[1:])
    if code is not None:
        sys.exit(code)

    from yarnlab.cli import main

    main()
