"""What is pushed to a site and runs there: the job script, the small programs, environments."""
