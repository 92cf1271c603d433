"""hoody: one Linux box, where long-lived things are URLs."""

__version__ = "0.1.0"
