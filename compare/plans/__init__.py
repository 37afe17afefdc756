"""What fixes it: which layers have to stay in FP32, searched, run and measured; and what a cause calls for."""
