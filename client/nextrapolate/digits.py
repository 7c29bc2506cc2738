"""Numbers, as pages write them."""


def number(value: float | str | None) -> str:
    """Four digits that count, and a dash for what is not there."""
    if value is None:
        return "–"  # noqa: RUF001 - a dash is meant
    return f"{value:.4g}" if isinstance(value, float) else str(value)
