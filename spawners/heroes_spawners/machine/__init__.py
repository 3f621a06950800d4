"""The scheduler for the machine itself: a daemon of its own, and the `Site` over it."""
