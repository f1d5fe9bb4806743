"""Models: loading, processors, the blocks of any transformers model, tiny random ones."""
