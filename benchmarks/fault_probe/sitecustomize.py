"""Every Python process of the crash campaign loads this: it lies on PYTHONPATH, and Python imports it by its name.

When a file operation comes that faults.py waits for, it sends the signal, or tells faults.py which process it is. So a
signal arrives at the very moment before a rename or in the middle of a write, which no clock outside would hit.
Nothing of yarnlab is changed: the operations are those that Python reports to its audit hooks.
"""

import json
import os
import re
import sys
from contextlib import suppress

FOLDER = os.environ.get("YARNLAB_FAULTS", "")
EVENTS = ("open", "os.rename", "os.mkdir", "sqlite3.connect")
_busy = False


def watch(event, arguments):
    global _busy
    if _busy or event not in EVENTS:
        return
    path = arguments[1 if event == "os.rename" else 0]
    if not isinstance(path, str | bytes | os.PathLike):
        return
    _busy = True  # what is opened here is no operation of the study
    try:
        with (
            suppress(FileNotFoundError, ValueError),
            open(os.path.join(FOLDER, "armed.json"), encoding="utf-8") as file,
        ):
            armed = json.load(file)
            verb = (getattr(sys, "argv", None) or [""])[1:2]
            for fault in armed["faults"]:
                _meet(armed["coordinator"], fault, " ".join([event, os.fsdecode(path), *verb, ""][:3]))
    finally:
        _busy = False


def _meet(coordinator, fault, operation):
    if os.getpid() == coordinator or not re.search(fault["pattern"], operation):
        return  # the coordinator itself only looks at what there is
    place = os.path.join(FOLDER, f"fault-{fault['number']}")
    counter = os.open(f"{place}.count", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.write(counter, b".")
    met = os.lseek(counter, 0, os.SEEK_CUR)  # behind this process's own byte, whoever else counts
    os.close(counter)
    if met != fault["count"]:
        return
    with open(f"{place}.new", "w", encoding="utf-8") as file:
        json.dump({"pid": os.getpid(), "operation": operation}, file)
    os.rename(f"{place}.new", f"{place}.json")
    if fault["delay"] == 0:
        if fault["to"] == "group":
            os.killpg(coordinator, fault["signal"])
        else:
            os.kill(os.getpid() if fault["to"] == "job" else coordinator, fault["signal"])


if FOLDER:
    sys.addaudithook(watch)
