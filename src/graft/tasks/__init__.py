"""Tasks: what a row is, how it is encoded, scored and predicted."""
