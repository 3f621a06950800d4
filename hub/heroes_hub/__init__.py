"""The platform as a whole: settings, its processes and their supervisor, operator's commands, the demo."""
