"""Starting things on clusters: transports, schedulers, isolation, and what is pushed to a cluster."""
