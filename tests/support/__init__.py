"""What several test files share: tiny models, trees of raw files, a small Hub."""
