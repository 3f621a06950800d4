"""What every module shares: the unit of work, audit, outbox, the server that answers the contract."""
