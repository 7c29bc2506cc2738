"""The way into `nextrapolate-server`; where packages that it needs are missing, it says what to install."""


def main() -> None:
    """Run the command.

    Raises:
        SystemExit: how it ended, or what to install first.
    """
    try:
        from nextrapolate_service.server.cli import main as command
    except ModuleNotFoundError as missing:
        if missing.name is None or missing.name.startswith("nextrapolate"):
            raise
        raise SystemExit(
            f"nextrapolate-server: {missing.name} is not installed; the client and the plugin do not need "
            "it. To run the server, pip install -c constraints.txt '.[server]' in a clone of nextrapolate"
        ) from None
    command()
