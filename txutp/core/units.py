"""Units of time; sizes are bytes and need none."""

SECOND_US = 1_000_000
