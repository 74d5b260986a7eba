"""``uringblob`` on the command line: one command a file, listed in :mod:`uringblob.cli.main`."""
