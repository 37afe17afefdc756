"""Whether Model Explorer finds the node of every key of the node data that ``--model-explorer`` writes."""
