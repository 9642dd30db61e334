"""Looking at a stack that runs: its status, its logs, and a bundle of both for a report. Nothing here changes it."""
