"""Data sets and image files, loaded as tensors; imports the networks and what lies below them."""
