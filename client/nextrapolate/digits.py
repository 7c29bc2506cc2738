"""Numbers and flags, as pages write them."""


def number(value: float | str | None) -> str:
    """Four digits that count, yes or no for a flag, and a dash for what is not there."""
    if value is None:
        return "–"  # noqa: RUF001 - a dash is meant
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
