"""What happens besides a run: people are told, metrics are written, problems are looked for."""
