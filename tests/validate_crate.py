"""rocrate-validator on a results folder, by the profile Provenance Run Crate; with the Python that has it installed:
`python tests/validate_crate.py results/micro`. Exit status 1 and the reasons where a requirement is not met.

The validator fetches RO-Crate's JSON-LD context. Where that can't be reached, a second argument names a list of
schema.org's terms (rocrate/data/schema.jsonld in yarnlab's environment), which stand in for it with two of Bioschemas'.
"""

import io
import json
import sys
import urllib.request
from pathlib import Path

import rdflib.plugins.shared.jsonld.context as jsonld
import requests
import urllib3
from rocrate_validator import models, services

CONTEXT = "https://w3id.org/ro/crate/1.1/context"
SCHEMA, BIOSCHEMAS = "http://schema.org/", "https://bioschemas.org/"


def without_network(vocabulary: Path) -> None:
    """Have the validator read a stand-in for RO-Crate's context."""
    names = [entity["@id"].removeprefix("schema:") for entity in json.loads(vocabulary.read_text())["@graph"]]
    terms = {name: SCHEMA + name for name in names} | {
        "File": f"{SCHEMA}MediaObject",
        "conformsTo": "http://purl.org/dc/terms/conformsTo",
        "ComputationalWorkflow": f"{BIOSCHEMAS}ComputationalWorkflow",
        "FormalParameter": f"{BIOSCHEMAS}FormalParameter",
    }
    document, read, send = {"@context": terms}, jsonld.source_to_json, requests.Session.send

    def source_to_json(source, *arguments, **named):
        return (document, None) if source == CONTEXT else read(source, *arguments, **named)

    def answer(session, request, **named):
        if request.url != CONTEXT:
            return send(session, request, **named)
        body = json.dumps(document).encode()
        response = requests.Response()
        response.status_code, response.url, response.request, response._content = 200, CONTEXT, request, body
        response.headers["Content-Type"] = "application/ld+json"
        response.raw = urllib3.HTTPResponse(io.BytesIO(body), status=200, request_url=CONTEXT, preload_content=False)
        return response

    jsonld.source_to_json, requests.Session.send = source_to_json, answer


def main(folder: str, vocabulary: str | None = None) -> int:
    try:
        urllib.request.urlopen(CONTEXT, timeout=10).close()
    except OSError:
        if vocabulary is None:
            raise
        print("RO-Crate's context can't be reached: a stand-in is read", file=sys.stderr)
        without_network(Path(vocabulary))
    settings = services.ValidationSettings(
        rocrate_uri=folder,
        profile_identifier="provenance-run-crate",
        requirement_severity=models.Severity.REQUIRED,
        no_cache=True,
    )
    found = services.validate(settings)
    for issue in found.get_issues():
        print(f"{issue.severity.name}: {issue.message}")
    return int(found.has_issues())


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
