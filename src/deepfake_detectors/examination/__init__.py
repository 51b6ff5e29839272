"""Examination of one file: faces, frames, tracks, checks and a decision."""
