"""What a runtime must fulfil, and what it is given."""
