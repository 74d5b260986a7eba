"""The log: written, read, grouped, compacted."""
