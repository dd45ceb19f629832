"""Rules, plans, the journal, and the executor of plans. Knows no backup, and no service."""
