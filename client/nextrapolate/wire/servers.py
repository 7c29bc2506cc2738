"""Which server to talk to, and with which key."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from nextrapolate.errors import ConfigurationError

DEFAULT_PORT = 8008
DEFAULT_URL = f"http://127.0.0.1:{DEFAULT_PORT}"


@dataclass(frozen=True)
class Server:
    """An address, the key that opens it, and what its jobs are lent.

    Attributes:
        hub_token: the caller's own Hugging Face token, sent with jobs over hf:// checkpoints only.
    """

    url: str
    api_key: str | None = field(repr=False)
    hub_token: str | None = field(repr=False)


def find_server(url: str | None, api_key: str | None, hub_token: str | None = None) -> Server:
    """Find out which server is meant: by the caller, else by the environment, else the one on this machine.

    An embedded server notes in `servers.json` of the user's configuration folder, by its address, where its
    key is. A server that needs no key, or one whose key is not known, gets none. A Hugging Face token that
    was not meant for a nextrapolate server (HF_TOKEN, or what `hf auth login` keeps) is never looked at.

    Raises:
        ConfigurationError: the address is no http address, or the key cannot be read or sent.
    """
    chosen = _checked(url or os.environ.get("NEXTRAPOLATE_URL") or DEFAULT_URL)
    key = api_key or os.environ.get("NEXTRAPOLATE_API_KEY") or _noted_key(chosen)
    token = hub_token or os.environ.get("NEXTRAPOLATE_HUB_TOKEN") or None
    for secret, where in (
        (key, "the server's api_key file"),
        (token, "https://huggingface.co/settings/tokens"),
    ):
        if secret and not (secret.isascii() and secret.isprintable() and " " not in secret):
            raise ConfigurationError(
                "the key or token contains characters that a key cannot have: paste exactly the one line "
                f"from {where}"
            )
    return Server(chosen, key, token)


def _checked(url: str) -> str:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        parsed = httpx.URL()
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ConfigurationError(f"{url!r} is not a server's address; write it like {DEFAULT_URL}")
    return url.rstrip("/")


def notes_path() -> Path:
    """Tell where embedded servers of this user note where their keys are."""
    home = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(home) / "nextrapolate" / "servers.json"


def _noted_key(url: str) -> str | None:
    """Read the key that an embedded server on this machine has left for its user."""
    notes = notes_path()
    try:
        noted = json.loads(notes.read_text())
        # An embedded server notes the address it listens on; people call the same place localhost.
        key_file = noted.get(url) or noted.get(url.replace("//localhost", "//127.0.0.1"))
        return Path(key_file).read_text().strip() if key_file else None
    except FileNotFoundError:
        return None
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise ConfigurationError(
            f"{notes} says where the key of {url} is, but it cannot be read ({error}); give api_key, "
            "--api-key or NEXTRAPOLATE_API_KEY"
        ) from error
