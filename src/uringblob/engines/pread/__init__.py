"""The engine for every system: a few threads over positional calls."""
