"""The file store: format, log, recovery, group commit, and the async store over them."""
