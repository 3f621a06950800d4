"""The ledger of who owes whom, budgets that are never exceeded, and what was spent on what."""
