"""graft: fine-tune transformers by composition."""

__version__ = "0.1.0"
