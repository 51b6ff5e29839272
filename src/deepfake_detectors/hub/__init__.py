"""Cards, and what is pushed to the Hub."""
