"""The parts of ``examples/archive.py``: a directory tree in a blob store, and back.

``tree``         what is in a directory tree
``catalogue``    which file lies where, stored in frames and found through one well-known guid
``pack``         tree to store
``restore``      store to tree
``compare``      two trees, file by file
``concurrency``  a bounded number of tasks over many items
``progress``     a bar on a terminal, lines elsewhere
"""
