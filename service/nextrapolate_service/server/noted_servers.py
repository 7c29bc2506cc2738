"""servers.json in the user's configuration folder: where clients on this machine find the key of a server."""

import json
from pathlib import Path

from nextrapolate.wire.servers import notes_path
from nextrapolate_store.files import write_over


def note_server(url: str, key_file: Path) -> None:
    """Note where the key of the server at this address is, and forget servers whose key is gone."""
    notes = notes_path()
    notes.parent.mkdir(parents=True, exist_ok=True)
    noted = {known: path for known, path in _read(notes).items() if Path(path).exists()}
    write_over(notes, json.dumps({**noted, url: str(key_file)}, indent=2), mode=0o600)


def _read(notes: Path) -> dict[str, str]:
    try:
        noted = json.loads(notes.read_text())
    except (FileNotFoundError, ValueError):  # nothing noted yet, or nothing that can be kept
        return {}
    return {str(url): str(path) for url, path in noted.items()} if isinstance(noted, dict) else {}
