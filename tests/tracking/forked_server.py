"""`python forked_server.py FOLDER PORT`: MLflow's server over FOLDER/mlflow.db, another one with every line on stdin.

Each is forked from a process that has imported MLflow, which takes longer than all else that a server does. Prints the
process that serves, to be killed before the next line.
"""

import os
import signal
import sys
from pathlib import Path

from mlflow.server.constants import (
    ARTIFACT_ROOT_ENV_VAR,
    ARTIFACTS_DESTINATION_ENV_VAR,
    BACKEND_STORE_URI_ENV_VAR,
    SERVE_ARTIFACTS_ENV_VAR,
)


def main(folder: Path, port: int) -> None:
    """Serve until stdin ends."""
    os.environ |= {
        BACKEND_STORE_URI_ENV_VAR: f"sqlite:///{folder / 'mlflow.db'}",
        ARTIFACT_ROOT_ENV_VAR: "mlflow-artifacts:/",
        ARTIFACTS_DESTINATION_ENV_VAR: (folder / "artifacts").as_uri(),
        SERVE_ARTIFACTS_ENV_VAR: "true",
    }
    import uvicorn
    from mlflow.server.fastapi_app import app  # which looks at the environment

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for who was killed
    for _ in sys.stdin:
        if not (server := os.fork()):
            uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")
            os._exit(0)
        print(server, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
