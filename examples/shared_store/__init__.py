"""One process writes, all read: a store server on a Unix socket, and an HTTP application of many workers."""
