"""MLflow's own pages on this machine."""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from yarnlab.processes import start_apart
from yarnlab.tracking import store
from yarnlab.tracking.publication import publish

_PORTS_TRIED = 100
_ALLOWED_HOSTS = "MLFLOW_SERVER_ALLOWED_HOSTS"


def serve(results: Path, host: str = "127.0.0.1", port: int = 5000) -> None:
    """Run `mlflow server` over the studies of `results` until Ctrl-C, and print links to their runs once it answers.

    Publishes first what MLflow lacks. Takes the next free port when `port` is in use. Where MLFLOW_TRACKING_URI names a
    server, only prints the links. SystemExit, with what to do, when there is nothing to show or MLflow does not start.
    """
    uri = store.tracking_uri(results)
    studies = sorted(folder.parent.parent for folder in results.glob("*/tracking/records"))
    database = store.database_file(uri)
    if not studies and (database is None or not database.exists()):
        raise SystemExit("There is nothing to show yet: run a study first (envs/run snakemake --cores all).")
    views = {}
    for study in studies:
        result = publish(study)
        views[study.name] = result.view
        if result.warning:
            print(f"{study.name}: not all is in MLflow. {result.warning}", file=sys.stderr)
    if store.is_server(uri):
        _print_links(store.without_login(uri), views)
        return
    free = _free_port(host, port)
    link = f"http://{host}:{free}"
    if free != port:
        print(f"Port {port} is in use. Run links of reports lead there: give them {link} at the end of the page.")
    print(f"Starting MLflow on {link} …", flush=True)
    command = [sys.executable, "-m", "mlflow", "server", "--host", host, "--port", str(free), "--workers", "1"]
    command += ["--backend-store-uri", uri, "--artifacts-destination", (results.resolve() / store.ARTIFACTS).as_uri()]
    # The job runners serve MLflow's language-model features only, and cost several processes.
    settings = store.SETTINGS | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    if allowed := os.environ.get(_ALLOWED_HOSTS):  # MLflow would answer these alone, and no longer its own link
        settings[_ALLOWED_HOSTS] = f"{allowed},{host}:*,localhost:*"
    with open(results / "mlflow-server.log", "wb") as log:
        server = start_apart(command, log, settings)  # Ctrl-C comes from here alone
    for number in (signal.SIGTERM, signal.SIGHUP):  # a workflow's and a closed terminal's stop it as Ctrl-C does
        signal.signal(number, signal.default_int_handler)
    try:
        while server.poll() is None and store.unreachable(link, 2.0):
            time.sleep(0.3)
        if server.poll() is None:
            _print_links(link, views)
            print(f"Database {store.redacted(uri)}; Ctrl-C stops MLflow.", flush=True)
        raise SystemExit(f"MLflow stopped by itself with status {server.wait()}; see {log.name}.")
    except KeyboardInterrupt:
        server.send_signal(signal.SIGINT)  # it passes this on to its workers
        with suppress(subprocess.TimeoutExpired):
            server.wait(10.0)
        print("\nMLflow stopped.", flush=True)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)


def _print_links(link: str, views: dict[str, str]) -> None:
    print(f"MLflow: {link}")
    for study, view in views.items():
        if view:
            print(f"  {study}: {link.rstrip('/')}/{view}", flush=True)


def _free_port(host: str, port: int) -> int:
    for candidate in range(port, min(port + _PORTS_TRIED, 65536)):
        with suppress(OSError), socket.create_server((host, candidate)):
            return candidate
    raise SystemExit(f"No free port on {host} from {port} to {port + _PORTS_TRIED - 1}; name another first port.")
