"""Finds the bytes of pictures, decodes them in separate processes, and keeps the result on disk."""
