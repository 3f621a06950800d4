"""The contract: every operation that HEROES answers, its types, its errors and their units."""
