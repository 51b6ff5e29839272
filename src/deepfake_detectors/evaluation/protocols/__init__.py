"""The papers' published ways of scoring."""
