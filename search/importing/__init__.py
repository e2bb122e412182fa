"""Reads studies that other programs wrote, runs nothing of them, and records each as a study of this program."""
