"""What can be said about a pair of tensors in one pass, in host memory or on a device."""
