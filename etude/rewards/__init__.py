"""Feedback: verdicts on attempts, found in a child process that the run can outlive."""
