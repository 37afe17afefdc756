"""Architectures that people deploy, exported and converted soundly: no layer may be accused."""
