"""The engine on io_uring."""
