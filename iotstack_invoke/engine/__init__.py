"""Rules, plans, the journal, and what carries a plan out. Knows no backup, and no service."""
