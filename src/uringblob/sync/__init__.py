"""The file store for threads: a loop in a thread of its own, and calls into it."""
