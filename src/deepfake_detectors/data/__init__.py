"""Data sets: the registry of builders, loading, Parquet, lint."""
