"""Clusters: enrolment, service accounts, queues with price and power, health."""
