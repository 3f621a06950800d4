"""Agreements between organisations and those who offer clusters. They come from the platform's settings."""
