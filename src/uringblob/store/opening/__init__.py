"""From a path to an open store: find or create, lock, recover, repair."""
