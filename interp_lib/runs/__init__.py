"""Run folders: train into one, read, check, release, import; learning curves; the Hub."""
