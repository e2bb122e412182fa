"""Data sets and image files, loaded as tensors; imports the networks and the layers below them."""
