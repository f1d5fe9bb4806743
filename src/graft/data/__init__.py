"""Data: where rows come from, what a row is, how rows become batches."""
