"""What shares, merging and a cluster cost."""
