"""Examination of one file that a person holds: faces, frames, tracks, and what must be said before a verdict."""
