"""What happens beside a run: notifications, metrics, Home Assistant, the search for problems."""
