"""Units of work with an identity."""
