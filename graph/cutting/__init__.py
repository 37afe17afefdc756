"""Where a graph may be cut, and what is cut out of it: fused groups, pieces, slices."""
