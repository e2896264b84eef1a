"""A person's own table and the choices for its columns, kept on disk across a reload of the page.

Only where the app serves this machine alone. A random name in the address says which table is the session's.
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
from contextlib import suppress
from pathlib import Path

import streamlit as st

from shrp.files import cache_folder
from ui.bound import set_param

PARAM = "own"
"""Parameter of the address, and key of the session's state: the kept table's random name."""
_MOST = 8
"""Tables that are kept on disk; then the oldest goes."""
_CHOICES = "choices.json"
_NAME = re.compile(r"[0-9a-f]{16}")
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}


def is_local() -> bool:
    """Whether the app serves nobody but this machine, also not by a proxy: its options would name that one's host."""
    hosts = st.get_option("server.allowedHosts")  # an empty list allows any
    named = {st.get_option("server.address"), st.get_option("browser.serverAddress"), *hosts}
    return bool(hosts) and named <= _LOOPBACK


def _folder() -> Path | None:
    found = cache_folder() if is_local() else None
    return None if found is None else found / "own-data"


def keep(file_name: str, content: bytes | memoryview) -> None:
    """Keep an uploaded file under a name of its own; a disk that does not take it changes nothing else."""
    forget()
    if (folder := _folder()) is None:
        return
    name = secrets.token_hex(8)
    with suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / name).mkdir(mode=0o700)
        (folder / name / file_name).write_bytes(content)
        st.session_state[PARAM] = name
        kept = sorted((one for one in folder.iterdir() if one.is_dir()), key=lambda one: one.stat().st_mtime)
        for old in kept[:-_MOST]:
            shutil.rmtree(old, ignore_errors=True)


def kept_file() -> Path | None:
    """The file that the address of a new session names; None where it names none, or the session has one."""
    name = st.query_params.get(PARAM, "")
    if PARAM in st.session_state or not _NAME.fullmatch(name) or (folder := _folder()) is None:
        return None
    with suppress(OSError):
        files = [one for one in (folder / name).iterdir() if one.is_file() and one.name != _CHOICES]
        if len(files) == 1:
            st.session_state[PARAM] = name
            with suppress(OSError, ValueError):
                choices = json.loads((folder / name / _CHOICES).read_text(encoding="utf-8"))
                for key, value in choices.items() if isinstance(choices, dict) else ():
                    if key.startswith("own-") and isinstance(value, str | bool):
                        st.session_state[key] = value
            return files[0]
    return None


def keep_choices(prefix: str) -> None:
    """Keep what the widgets of a table hold, whose keys begin with a prefix, and have the address name the table."""
    name = st.session_state.get(PARAM)
    set_param(PARAM, name)
    if name is None or (folder := _folder()) is None:
        return
    choices = {
        str(key): value
        for key, value in st.session_state.items()
        if str(key).startswith(prefix) and isinstance(value, str | bool) and not str(key).endswith("remove")
    }
    text, file = json.dumps(choices, sort_keys=True), folder / name / _CHOICES
    with suppress(OSError):
        if not file.is_file() or file.read_text(encoding="utf-8") != text:
            file.write_text(text, encoding="utf-8")


def forget() -> None:
    """Delete what is kept of this session."""
    name = st.session_state.pop(PARAM, None)
    if name is not None and (folder := _folder()) is not None:
        shutil.rmtree(folder / name, ignore_errors=True)
