"""What is run by the clock: entries, their schedules, their runs."""
