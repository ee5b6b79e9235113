"""Servers whose answers are lost, that are slow, that want a login: what MLflow has in the end is
what it has of an undisturbed run, entity by entity."""

import re
import threading
import time
import urllib.error
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.request import Request, urlopen

import pytest
from tracking.conftest import Store, done
from tracking.stores import assert_same, everything, publish_all, served, train

from yarnlab.tracking import publication


@contextmanager
def proxied(backend, fate):
    """A proxy of `backend`. `fate(request)`: 'unheard' is carried out without an answer, 'late' three seconds later."""
    carried_out = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            kind = re.sub(r"m-[0-9a-f]{32}|[0-9a-f]{32}|(?<=artifacts/).*", "", self.path.partition("?")[0])
            fated = fate(f"{self.command} {kind.removeprefix('/api/2.0/mlflow/')}")
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)) or None
            headers = {key: value for key, value in self.headers.items() if key not in ("Host", "Accept-Encoding")}
            request = Request(backend + self.path, body, headers, method=self.command)
            self.close_connection = True
            if fated == "late":
                carried_out.append(threading.Timer(3.0, answer, [request]))
                carried_out[-1].start()
                return
            status, kind, content = answer(request)
            if fated == "unheard":
                return
            self.send_response(status)
            self.send_header("Content-Type", kind or "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

        def log_message(self, *_):
            pass

    def answer(request):
        try:
            with urlopen(request) as got:
                return got.status, got.headers.get("Content-Type"), got.read()
        except urllib.error.HTTPError as error:
            return error.code, error.headers.get("Content-Type"), error.read()

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        for timer in carried_out:
            timer.join()
        server.shutdown()


@pytest.mark.slow
@pytest.mark.parametrize("fate", ["unheard", "late"])
def test_answers_that_are_lost(study, folder, use_uri, closed_port, fate):
    """Every kind of request has once no answer, be it carried out at once or after the client has asked again, and all
    are answered slowly: nothing is missing or there twice. (A model's version that is late has a test beside those of models.)
    """
    study.execute()
    for number in range(2):
        train(study, number, 1200)
    lost = set()

    def meet(request):
        time.sleep(0.1)
        if request in lost or request.endswith("/health") or (fate, request) == ("late", "POST model-versions/create"):
            return ""
        lost.add(request)
        return fate

    with served(delayed := folder("slow"), closed_port) as uri:
        with proxied(uri, meet) as slow:
            use_uri(slow)
            assert publish_all(study) > 5
        use_uri(uri)
        publish_all(study)  # after what came late
        found = everything(uri, delayed)
    creating = {"runs/create", "runs/log-batch", "logged-models", "runs/set-tag"}
    assert creating <= {request.partition(" ")[2] for request in lost}
    with served(undisturbed := folder("undisturbed"), closed_port) as uri:
        use_uri(uri)
        assert publish_all(study) == 1
        assert_same(found, everything(uri, undisturbed))


@pytest.mark.slow
def test_a_server_with_a_login(study, folder, use_uri, closed_port, monkeypatch):
    """MLflow's own basic-auth: refused without it and with a wrong one, in one line without the password."""
    pytest.importorskip("flask_wtf", reason="`mlflow server --app-name basic-auth` needs mlflow[auth]")
    study.execute()
    train(study, 0, 20)
    place = folder("login")
    secret = {"MLFLOW_FLASK_SERVER_SECRET_KEY": "of-the-server", "MLFLOW_AUTH_ADMIN_PASSWORD": "password-of-admin"}
    with served(place, closed_port, "--app-name", "basic-auth", **secret) as uri:
        use_uri(uri)
        for user, password in ((None, None), ("admin", "wrong-password")):
            if user:
                monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", user)
                monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)
            refused = publication.publish(study.directory)
            assert (refused.published, refused.pending) == (0, 1)
            assert re.search("401|authenticat", refused.warning, re.I) and str(password) not in refused.warning
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "password-of-admin")
        assert publish_all(study) == 1
        assert "model0" in {run.info.run_name for run in Store(uri).runs()}
        assert str(Store(uri).models()["model0"].status) == "READY"
        monkeypatch.delenv("MLFLOW_TRACKING_USERNAME")
        monkeypatch.delenv("MLFLOW_TRACKING_PASSWORD")
        use_uri(uri.replace("//", "//admin:password-of-admin@"))
        assert done(publication.publish(study.directory)) == (0, 0, None)
