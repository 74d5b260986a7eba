"""One protocol, two engines, and the choice between them."""
