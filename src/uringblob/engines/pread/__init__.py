"""The engine for everywhere: a few threads over positional calls."""
