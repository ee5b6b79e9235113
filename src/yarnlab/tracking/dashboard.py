"""MLflow's own pages on this machine."""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from yarnlab.tracking.publication import publish
from yarnlab.tracking.store import (
    ARTIFACTS,
    SETTINGS,
    database_file,
    is_server,
    redacted,
    tracking_uri,
    unreachable,
    without_login,
)

_PORTS_TRIED = 100
_START_S = 120.0
ALLOWED_HOSTS = "MLFLOW_SERVER_ALLOWED_HOSTS"


def serve(results: Path, host: str = "127.0.0.1", port: int = 5000) -> None:
    """Run `mlflow server` over the studies of `results` until Ctrl-C, and print links to their runs once it answers.

    Publishes first what MLflow lacks. Takes the next free port when `port` is in use. Where MLFLOW_TRACKING_URI names a
    server, only prints the links. SystemExit, with what to do, when there is nothing to show or MLflow does not start.
    """
    results = Path(results)
    uri = tracking_uri(results)
    studies = sorted(folder.parent.parent for folder in results.glob("*/tracking/records"))
    database = database_file(uri)
    if not studies and (database is None or not database.exists()):
        raise SystemExit("There is nothing to show yet: run a study first (envs/run snakemake --cores all).")
    views = {}
    for study in studies:
        result = publish(study)
        views[study.name] = result.view
        if result.warning:
            print(f"{study.name}: not all is in MLflow. {result.warning}", file=sys.stderr)
    if is_server(uri):
        _print_links(without_login(uri), views)
        return
    free = _free_port(host, port)
    link = f"http://{host}:{free}"
    if free != port:
        print(f"Port {port} is in use. Run links of reports lead there: give them {link} at the end of the page.")
    print(f"Starting MLflow on {link} …", flush=True)
    command = [sys.executable, "-m", "mlflow", "server", "--host", host, "--port", str(free), "--workers", "1"]
    command += ["--backend-store-uri", uri, "--artifacts-destination", (results.resolve() / ARTIFACTS).as_uri()]
    # The job runners serve MLflow's language-model features only, and cost several processes.
    settings = SETTINGS | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    if allowed := os.environ.get(ALLOWED_HOSTS):  # MLflow would answer these alone, and no longer its own link
        settings[ALLOWED_HOSTS] = f"{allowed},{host}:*,localhost:*"
    log = results / "mlflow-server.log"
    # SIGTERM (a workflow's) and SIGHUP (a closed terminal's) stop the server as Ctrl-C does.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    with open(log, "wb") as output:
        server = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # its workers are stopped with it, as one group
            env=os.environ | settings,
        )
        try:
            _wait_until_ready(server, link, log)
            _print_links(link, views)
            print(f"Database {redacted(uri)}; Ctrl-C stops MLflow.", flush=True)
            server.wait()
            raise SystemExit(f"MLflow stopped by itself with status {server.returncode}; see {log}.")
        except KeyboardInterrupt:
            print("\nMLflow stopped.", flush=True)
        finally:
            _stop(server)


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


def _wait_until_ready(server: subprocess.Popen[bytes], link: str, log: Path) -> None:
    give_up = time.monotonic() + _START_S
    while unreachable(link, 2.0):
        if server.poll() is not None or time.monotonic() > give_up:
            raise SystemExit(f"MLflow did not start; its messages are in {log}.")
        time.sleep(0.3)


def _stop(server: subprocess.Popen[bytes]) -> None:
    for number, patience_s in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0)):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(server.pid, number)
        with suppress(subprocess.TimeoutExpired):
            server.wait(patience_s)
            return
