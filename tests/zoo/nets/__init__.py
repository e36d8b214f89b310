"""Compact definitions of well-known networks: topology and widths of torchvision's, without torchvision."""
