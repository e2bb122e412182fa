"""Studies replayed on recorded learning curves; imports the algorithms and what lies below them."""
