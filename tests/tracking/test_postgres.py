"""MLflow on a Postgres database: the store of a study is what it is on sqlite, entity by entity."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from tracking.conftest import done
from tracking.stores import assert_same, everything, publish_all, served, train

from yarnlab.tracking import publication

INSTALLED = [*map(str, Path("/usr/lib/postgresql").glob("*/bin")), os.environ["PATH"]]
PG_CTL = shutil.which("pg_ctl", path=os.pathsep.join(INSTALLED))


@contextmanager
def cluster(port):
    """A Postgres server with a login and an empty database, in a folder of its own; yields (URI, stop)."""
    programs = Path(PG_CTL).parent
    user = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}  # it refuses root

    def call(program, *arguments):
        env = os.environ | {"PGPASSWORD": "secret"}
        made = subprocess.run(
            [programs / program, *arguments], env=env, cwd="/", capture_output=True, text=True, **user
        )
        assert made.returncode == 0, made.stderr

    def stop():
        call("pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")

    with tempfile.TemporaryDirectory() as folder:
        if user:
            shutil.chown(folder, "postgres", "postgres")
        data, password = f"{folder}/data", Path(folder, "password")
        password.write_text("secret")
        password.chmod(0o644)
        call("initdb", "-D", data, "-A", "scram-sha-256", "-U", "yarnlab", f"--pwfile={password}", "--no-sync")
        options = f"-p {port} -h 127.0.0.1 -k {folder} -F"
        call("pg_ctl", "-D", data, "-l", f"{folder}/log", "-o", options, "-w", "start")
        try:
            call("createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "yarnlab", "mlflow")
            yield f"postgresql://yarnlab:secret@127.0.0.1:{port}/mlflow", stop
        finally:
            if Path(data, "postmaster.pid").exists():
                stop()


@pytest.mark.slow
@pytest.mark.skipif(PG_CTL is None, reason="no Postgres on this machine (apt-get install postgresql)")
def test_a_postgres_database_has_what_sqlite_has(study, folder, use_uri, closed_port):
    """Published through a server on it, twice; then read without the server; then the database is dead."""
    pytest.importorskip("psycopg2", reason="no driver of Postgres (pip install psycopg2-binary)")
    study.execute()
    for number in range(3):
        train(study, number, 700)
    with cluster(closed_port) as (uri, stop):
        command = [sys.executable, "-m", "mlflow", "db", "upgrade", uri]
        subprocess.run(command, check=True, capture_output=True)
        place = folder("postgres")
        with served(place, closed_port + 1, "--backend-store-uri", uri) as server:
            use_uri(server)
            assert publish_all(study) == 1  # and a second time, which finds nothing to do
            found = everything(server, place)
        use_uri(uri)
        assert done(publication.publish(study.directory)) == (0, 0, None)
        study.evaluate("passkey", {"passkey/64": 1.0}, "model0")
        assert done(publication.publish(study.directory)) == (1, 0, None)
        assert publication.publication_state(study.directory) == f"{uri.replace('yarnlab:secret', '***')} 0"
        stop()
        began = time.monotonic()
        dead = publication.publish(study.directory)
        assert (dead.pending, "***@127.0.0.1" in dead.warning, "secret" in dead.warning) == (1, True, False)
        assert time.monotonic() - began < 3.5
    (study.directory / "tracking" / "records" / "passkey.model0.json").unlink()
    with served(undisturbed := folder("undisturbed"), closed_port) as server:
        use_uri(server)
        assert publish_all(study) == 1
        assert_same(found, everything(server, undisturbed))
